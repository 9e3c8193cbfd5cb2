"""GenMask on RefCOCO with FLUX.1 dev 12B, the image as extra tokens.

Ours: the paper takes Wan2.1 1.3B; prompts are those of Qwen2.5-VL-7B, as there.
Command: ``tools/dist_train.sh configs/genmask/refcoco_flux.py 8``
Hardware: see the memory table of configs/genmask/README.md. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

released = 'black-forest-labs/FLUX.1-dev'
model = dict(
    codec=dict(
        autoencoder=dict(
            type='diffusers.AutoencoderKL.from_pretrained',
            pretrained_model_name_or_path=released,
        )
    ),
    backbone=dict(
        family='flux',
        transformer=dict(
            type='diffusers.FluxTransformer2DModel.from_pretrained',
            pretrained_model_name_or_path=released,
        ),
    ),
)
