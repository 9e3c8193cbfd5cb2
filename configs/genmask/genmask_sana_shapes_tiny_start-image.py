"""The path of masks starts from the image's latents in place of noise.

Ours beside arXiv 2603.23906: the path of FlowRVS (arXiv 2510.06139, the image as a condition, too) and RLFSeg (arXiv
2605.04590), all else as in genmask_sana_shapes_tiny.py.
Command: ``python tools/train.py configs/genmask/genmask_sana_shapes_tiny_start-image.py``
Hardware: one CPU core, 14 minutes.
Expected: after 400 updates oIoU 34.3, 35.4, 32.2 (seeds 0 to 2), from noise 29.6, 31.6, 32.3; 2,800 not measured.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

model = dict(start='image')
