"""GenMask on ReasonSeg, the paper's model. Its 239 pictures are few: start from mixed.py's weights (load_from).

Paper: arXiv 2603.23906, ReasonSeg gIoU / cIoU 51.1 / 50.9 val, 52.3 / 45.8 test, after a description by the VLM.
Command: ``tools/dist_train.sh configs/genmask/reasonseg.py 8``
Hardware: 8 GPUs of 80 GB; hours not measured. Expected number: not reproduced yet.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/genmask_wan2.1-1.3b.py',
    '../_base_/datasets/reasonseg.py',
    '../_base_/schedules/genmask_8k.py',
]

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=500, save_best='gIoU'))
