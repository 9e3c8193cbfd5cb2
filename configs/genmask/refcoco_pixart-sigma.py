"""GenMask on RefCOCO with PixArt-Sigma 0.6B, the image as extra channels (a start, not a velocity model).

Ours: the paper takes Wan2.1 1.3B; prompts are those of Qwen2.5-VL-7B, as there.
Command: ``tools/dist_train.sh configs/genmask/refcoco_pixart-sigma.py 8``
Hardware: see the memory table of configs/genmask/README.md. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

released = 'PixArt-alpha/PixArt-Sigma-XL-2-512-MS'
model = dict(
    codec=dict(
        autoencoder=dict(
            type='diffusers.AutoencoderKL.from_pretrained',
            pretrained_model_name_or_path=released,
        )
    ),
    prompt_encoder=dict(padding='longest'),
    backbone=dict(
        family='pixart',
        transformer=dict(
            type='diffusers.PixArtTransformer2DModel.from_pretrained',
            pretrained_model_name_or_path=released,
        ),
    ),
)
