"""Discriminative control, tiny: an MMSegmentation ViT from scratch behind InstanceColoringHead, on procedural scenes.

Paper: arXiv 2505.15263, the mechanism of its DINO-B row (the same loss and prompting, no generative model).
Command: ``python tools/train.py configs/gen2seg/gen2seg_vit_shapes_tiny.py``
Hardware: 2 CPU cores.
Expected: not measured; it shows that any MMSegmentation segmentor takes the loss and the metric.
"""

_base_ = ['./gen2seg_mae_shapes_tiny.py']

model = dict(
    _delete_=True,
    type='mmseg.EncoderDecoder',
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[127.5] * 3,
        std=[127.5] * 3,
        bgr_to_rgb=True,
        size=(64, 64),
    ),
    backbone=dict(
        type='mmseg.VisionTransformer',
        img_size=(64, 64),
        patch_size=4,
        embed_dims=96,
        num_layers=4,
        num_heads=3,
        mlp_ratio=2,
        out_indices=(1, 3),
    ),
    decode_head=dict(
        type='genseg_mm.InstanceColoringHead',
        in_channels=[96, 96],
        in_index=[0, 1],
        channels=32,
        bias=-2.0,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
# mmseg.apis.inference_model reads a picture through this; the scenes of the datasets need no loading.
test_pipeline = [
    dict(type='genseg_mm.LoadImage', _scope_='mmseg'),
    dict(type='genseg_mm.NetworkResize', size=(64, 64)),
    dict(type='genseg_mm.PackGenSegInputs'),
]
