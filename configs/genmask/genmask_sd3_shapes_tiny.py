"""GenMask on procedural scenes with a tiny Stable Diffusion 3: the image as extra channels.

Command: ``python tools/train.py configs/genmask/genmask_sd3_shapes_tiny.py``
Hardware: 2 CPU cores; longer than genmask_sana_shapes_tiny, whose family learns fastest on a CPU.
Expected: a tested path; no number is claimed.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

model = dict(
    prompt_encoder=dict(padding='max_length'),
    backbone=dict(
        family='sd3',
        transformer=dict(
            _delete_=True,
            sample_size=8,
            patch_size=1,
            in_channels=40,
            out_channels=20,
            num_layers=4,
            attention_head_dim=32,
            num_attention_heads=3,
            joint_attention_dim=64,
            caption_projection_dim=96,
            pooled_projection_dim=32,
            pos_embed_max_size=16,
            qk_norm='rms_norm',
        ),
    ),
)
