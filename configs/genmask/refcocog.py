"""GenMask on RefCOCOg (UMD), the paper's model, jointly with text-to-image generation 1 : 1.

Paper: arXiv 2603.23906, RefCOCOg oIoU 75.6 val / 76.5 test.
Command: ``tools/dist_train.sh configs/genmask/refcocog.py 8``
Hardware: 8 GPUs of 80 GB; hours not measured. Expected number: not reproduced yet.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/genmask_wan2.1-1.3b.py',
    '../_base_/datasets/refcocog.py',
    '../_base_/schedules/genmask_8k.py',
]

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=500, save_best='oIoU'))
