"""GenMask on procedural scenes with a tiny Wan: the image is a clean frame before the mask's, as in the paper.

Command: ``python tools/train.py configs/genmask/genmask_wan_shapes_tiny.py``
Hardware: 2 CPU cores; longer than genmask_sana_shapes_tiny, whose family learns fastest on a CPU.
Expected: a tested path; no number is claimed.
"""

_base_ = ['./genmask_sana_shapes_tiny.py']

model = dict(
    prompt_encoder=dict(padding='max_length'),
    backbone=dict(
        family='wan',
        transformer=dict(
            _delete_=True,
            patch_size=(1, 1, 1),
            num_attention_heads=3,
            attention_head_dim=32,
            in_channels=20,
            out_channels=20,
            text_dim=64,
            freq_dim=64,
            ffn_dim=240,
            num_layers=4,
            rope_max_seq_len=64,
        ),
    ),
)
