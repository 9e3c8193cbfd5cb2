"""GenMask on procedural scenes with a tiny PixArt: the image as extra channels.

Command: ``python tools/train.py configs/genmask/genmask_pixart_shapes_tiny.py``
Hardware: 2 CPU cores; longer than genmask_sana_shapes_tiny, whose family learns fastest on a CPU.
Expected: a tested path; no number is claimed.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

model = dict(
    backbone=dict(
        family='pixart',
        transformer=dict(
            _delete_=True,
            num_attention_heads=3,
            attention_head_dim=32,
            in_channels=40,
            out_channels=20,
            num_layers=4,
            cross_attention_dim=96,
            sample_size=8,
            patch_size=1,
            caption_channels=64,
        ),
    ),
)
