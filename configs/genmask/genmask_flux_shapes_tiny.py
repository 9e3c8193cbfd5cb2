"""GenMask on procedural scenes with a tiny Flux: the image as extra tokens.

Command: ``python tools/train.py configs/genmask/genmask_flux_shapes_tiny.py``
Hardware: 2 CPU cores; longer than genmask_sana_shapes_tiny, whose family learns fastest on a CPU.
Expected: a tested path; no number is claimed.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

model = dict(
    prompt_encoder=dict(padding='max_length'),
    backbone=dict(
        family='flux',
        transformer=dict(
            _delete_=True,
            patch_size=1,
            in_channels=80,
            num_layers=2,
            num_single_layers=2,
            pooled_projection_dim=32,
            attention_head_dim=32,
            num_attention_heads=3,
            joint_attention_dim=64,
            axes_dims_rope=(8, 12, 12),
        ),
    ),
)
