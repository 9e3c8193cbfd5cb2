# The paper's discriminative control in MMSegmentation: a DINO ViT-B/16 with InstanceColoringHead, the same loss. (The
# paper decodes with Stable Diffusion's VAE decoder; a convolutional head stands in for it here.)
# Weights: DINO's dino_vitbase16_pretrain.pth through mmseg's tools/model_converters/vit2mmseg.py.
num_levels = 4
model = dict(
    type='mmseg.EncoderDecoder',
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        size_divisor=16,
    ),
    backbone=dict(
        type='mmseg.VisionTransformer',
        img_size=(224, 224),
        patch_size=16,
        in_channels=3,
        embed_dims=768,
        num_layers=12,
        num_heads=12,
        mlp_ratio=4,
        out_indices=(2, 5, 8, 11),
        qkv_bias=True,
        norm_cfg=dict(type='LN', eps=1e-6),
        interpolate_mode='bicubic',
        init_cfg=dict(type='Pretrained', checkpoint='pretrain/dino_vitbase16_mmseg.pth'),
    ),
    decode_head=dict(
        type='genseg_mm.InstanceColoringHead',
        in_channels=[768] * num_levels,
        in_index=list(range(num_levels)),
        channels=256,
        normalize='batch',
        loss_decode=dict(type='genseg_mm.InstanceColoringLoss', formula='reference'),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
