"""Ablation of the condition: the image reaches the model through the prompt encoder only (paper: a large drop).

Paper: arXiv 2603.23906, ablations.
Command: ``tools/dist_train.sh configs/genmask/refcoco_no-image-condition.py 8``
Hardware: 8 GPUs of 80 GB; hours not measured. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

model = dict(image_condition=False)
