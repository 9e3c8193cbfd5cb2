"""GenMask on RefCOCO+ (UNC), the paper's model, jointly with text-to-image generation 1 : 1.

Paper: arXiv 2603.23906, RefCOCO+ oIoU 78.7 testA / 68.1 testB.
Command: ``tools/dist_train.sh configs/genmask/refcoco+.py 8``
Hardware: 8 GPUs of 80 GB; hours not measured. Expected number: not reproduced yet.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/genmask_wan2.1-1.3b.py',
    '../_base_/datasets/refcoco+.py',
    '../_base_/schedules/genmask_8k.py',
]

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=500, save_best='oIoU'))
