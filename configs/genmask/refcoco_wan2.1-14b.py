"""GenMask on RefCOCO with Wan2.1 14B.

Ours: the paper takes Wan2.1 1.3B; prompts are those of Qwen2.5-VL-7B, as there.
Command: ``tools/dist_train.sh configs/genmask/refcoco_wan2.1-14b.py 8``
Hardware: see the memory table of configs/genmask/README.md. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

released = 'Wan-AI/Wan2.1-T2V-14B-Diffusers'
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
