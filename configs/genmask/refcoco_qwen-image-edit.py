"""GenMask on RefCOCO with Qwen-Image-Edit 20B, the image as extra tokens at timestep 0.

Ours: the paper takes Wan2.1 1.3B; prompts are those of Qwen2.5-VL-7B, as there.
Command: ``tools/dist_train.sh configs/genmask/refcoco_qwen-image-edit.py 8``
Hardware: see the memory table of configs/genmask/README.md. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

released = 'Qwen/Qwen-Image-Edit-2511'
model = dict(
    codec=dict(
        autoencoder=dict(
            type='diffusers.AutoencoderKLQwenImage.from_pretrained',
            pretrained_model_name_or_path=released,
        )
    ),
    prompt_encoder=dict(padding='longest'),
    backbone=dict(
        family='qwen_image_edit',
        transformer=dict(
            type='diffusers.QwenImageTransformer2DModel.from_pretrained',
            pretrained_model_name_or_path=released,
        ),
    ),
)
