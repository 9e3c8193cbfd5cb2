"""GenMask on procedural scenes with a tiny FLUX.2: the image as extra tokens at time 10, a token per latent cell.

Command: ``python tools/train.py configs/genmask/genmask_flux2_shapes_tiny.py``
Hardware: 2 CPU cores; longer than genmask_sana_shapes_tiny, whose family learns fastest on a CPU.
Expected: a tested path; no number is claimed.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

model = dict(
    prompt_encoder=dict(padding='max_length'),
    backbone=dict(
        family='flux2',
        transformer=dict(
            _delete_=True,
            in_channels=20,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=32,
            num_attention_heads=3,
            joint_attention_dim=64,
            timestep_guidance_channels=64,
            axes_dims_rope=(8, 8, 8, 8),
            guidance_embeds=False,
        ),
    ),
)
