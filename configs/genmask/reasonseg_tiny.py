"""GenMask on ReasonSeg and captions with the tiny Sana model: the data path of ``reasonseg.py`` on a CPU.

Command: ``tools/dist_train.sh configs/genmask/reasonseg_tiny.py 2`` (GENSEG_DATA: coco/, ReasonSeg/)
Hardware: 2 CPU cores, 5 minutes. Expected: a check of the whole path, not a model to report numbers of.
"""

_base_ = ['./refcoco_tiny.py']

reason_seg = dict(type='genseg_mm.ReasonSegDataset', data_root='{{$GENSEG_DATA:data}}')
train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(reason_seg, split='train', pipeline=_base_.train_pipeline),
            {**_base_.train_dataloader.dataset.datasets[1], 'exclude_images': None},
        ]
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True, split='val', test_mode=True, pipeline=_base_.test_pipeline, **reason_seg
    )
)
test_dataloader = val_dataloader
default_hooks = dict(checkpoint=dict(save_best='gIoU'))
val_evaluator = dict(protocol='reasonseg')
test_evaluator = val_evaluator
