"""GenMask on procedural scenes with a tiny Qwen-Image-Edit: the image as extra tokens at timestep 0.

Command: ``python tools/train.py configs/genmask/genmask_qwen-image-edit_shapes_tiny.py``
Hardware: 2 CPU cores; longer than genmask_sana_shapes_tiny, whose family learns fastest on a CPU.
Expected: a tested path; no number is claimed.
"""

_base_ = ['./genmask_qwen-image_shapes_tiny.py']

model = dict(backbone=dict(family='qwen_image_edit', transformer=dict(zero_cond_t=True)))
