"""GenMask on RefCOCO with Wan2.2 5B (16x autoencoder, 48 channels).

Ours: the paper takes Wan2.1 1.3B; prompts are those of Qwen2.5-VL-7B, as there.
Command: ``tools/dist_train.sh configs/genmask/refcoco_wan2.2-5b.py 8``
Hardware: see the memory table of configs/genmask/README.md. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

released = 'Wan-AI/Wan2.2-TI2V-5B-Diffusers'
model = dict(
    codec=dict(
        autoencoder=dict(
            type='diffusers.AutoencoderKLWan.from_pretrained',
            pretrained_model_name_or_path=released,
        )
    ),
    backbone=dict(
        transformer=dict(
            type='diffusers.WanTransformer3DModel.from_pretrained',
            pretrained_model_name_or_path=released,
        ),
    ),
)
