"""Ablation of the condition: the image reaches the model through the prompt encoder only (paper: a large drop).

Paper: arXiv 2603.23906, ablations.
The tiny prompt encoder does not look at the image: masks without it are guesses.
Command: ``python tools/train.py configs/genmask/genmask_sana_shapes_tiny_no-image-condition.py``
Hardware: 2 CPU cores, 5 minutes. Expected: not measured at this length.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

model = dict(image_condition=False)
