"""GenMask on procedural scenes with a tiny Z-Image: the image as extra tokens, time from noise to data.

Command: ``python tools/train.py configs/genmask/genmask_z-image_shapes_tiny.py``
Hardware: 2 CPU cores; longer than genmask_sana_shapes_tiny, whose family learns fastest on a CPU.
Expected: a tested path; no number is claimed.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

model = dict(
    backbone=dict(
        family='z_image',
        transformer=dict(
            _delete_=True,
            in_channels=20,
            all_patch_size=(1,),
            dim=96,
            n_layers=4,
            n_refiner_layers=1,
            n_heads=3,
            n_kv_heads=3,
            cap_feat_dim=64,
            axes_dims=[8, 12, 12],
            axes_lens=[256, 32, 32],
        ),
    ),
)
