"""GenMask on RefCOCO, ReasonSeg and captions with the tiny Sana model: the data path of ``mixed.py`` on a CPU.

Every batch of every process has masks and pictures. RefCOCO+, RefCOCOg and gRefCOCO are left out.
Command: ``tools/dist_train.sh configs/genmask/mixed_tiny.py 2`` (GENSEG_DATA: coco/, ReasonSeg/)
Hardware: 2 CPU cores, 5 minutes. Expected: a check of the whole path, not a model to report numbers of.
"""

_base_ = ['./refcoco_tiny.py']

referring, captions = _base_.train_dataloader.dataset.datasets
exclude_images = ['refcoco/refs(unc).p']
reason_seg = dict(
    type='genseg_mm.ReasonSegDataset',
    data_root='{{$GENSEG_DATA:data}}',
    split='train',
    pipeline=_base_.train_pipeline,
)
train_dataloader = dict(
    sampler=dict(ratio=[3, 1, 4], group=1),
    dataset=dict(datasets=[{**referring, 'exclude_images': exclude_images}, reason_seg, captions]),
)
