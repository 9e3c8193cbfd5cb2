"""GenMask on RefCOCO with Stable Diffusion 3.5 medium, the image as extra channels.

Ours: the paper takes Wan2.1 1.3B; prompts are those of Qwen2.5-VL-7B, as there.
Command: ``tools/dist_train.sh configs/genmask/refcoco_sd3.5-medium.py 8``
Hardware: see the memory table of configs/genmask/README.md. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

released = 'stabilityai/stable-diffusion-3.5-medium'
model = dict(
    codec=dict(
        autoencoder=dict(
            type='diffusers.AutoencoderKL.from_pretrained',
            pretrained_model_name_or_path=released,
        )
    ),
    backbone=dict(
        family='sd3',
        transformer=dict(
            type='diffusers.SD3Transformer2DModel.from_pretrained',
            pretrained_model_name_or_path=released,
        ),
    ),
)
