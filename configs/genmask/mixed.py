"""GenMask on RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO, ReasonSeg and captions together, the paper's model.

Paper: arXiv 2603.23906, one model for all tables (its data list is unknown).
Command: ``tools/dist_train.sh configs/genmask/mixed.py 8``
Hardware: 8 GPUs of 80 GB; hours not measured. Expected number: not reproduced yet.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/genmask_wan2.1-1.3b.py',
    '../_base_/datasets/referring_mixed.py',
    '../_base_/schedules/genmask_8k.py',
]

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=500, save_best='oIoU'))
