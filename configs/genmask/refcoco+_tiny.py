"""GenMask on RefCOCO+ and captions with the tiny Sana model: the data path of ``refcoco+.py`` on a CPU.

Command: ``tools/dist_train.sh configs/genmask/refcoco+_tiny.py 2`` (GENSEG_DATA names the folder that holds coco/)
Hardware: 2 CPU cores, 5 minutes. Expected: a check of the whole path, not a model to report numbers of.
"""

_base_ = ['./refcoco_tiny.py']

files = dict(ann_file='refcoco+/instances.json', split_file='refcoco+/refs(unc).p')
referring, captions = _base_.train_dataloader.dataset.datasets
train_dataloader = dict(
    dataset=dict(
        datasets=[
            {**referring, **files},
            {**captions, 'exclude_images': [files['split_file']]},
        ]
    )
)
val_dataloader = dict(dataset=files)
test_dataloader = dict(dataset=files)
