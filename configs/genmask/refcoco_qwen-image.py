"""GenMask on RefCOCO with Qwen-Image 20B, the image as extra tokens.

Ours: the paper takes Wan2.1 1.3B and shows Qwen2.5-VL-7B the image. Here the DiT keeps the text encoder that it was
released with: Qwen2.5-VL-7B reads the words alone, in Qwen-Image's own template.
Command: ``tools/dist_train.sh configs/genmask/refcoco_qwen-image.py 8``
Hardware: see the memory table of configs/genmask/README.md. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py', '../_base_/strategies/fsdp2.py']

released = 'Qwen/Qwen-Image'
model = dict(
    codec=dict(
        autoencoder=dict(
            type='diffusers.AutoencoderKLQwenImage.from_pretrained', pretrained_model_name_or_path=released
        )
    ),
    prompt_encoder=dict(
        encoder=dict(pretrained_model_name_or_path=released, subfolder='text_encoder'),
        processor=released,
        tokenizer_kwargs=dict(subfolder='tokenizer'),
        system_prompt=dict(mask='qwen_image', image='qwen_image'),
        looks_at_images=False,
        max_length=1024,
        padding='longest',
    ),
    backbone=dict(
        family='qwen_image',
        transformer=dict(
            type='diffusers.QwenImageTransformer2DModel.from_pretrained', pretrained_model_name_or_path=released
        ),
        prompt_dims=None,  # its own text projection: 3584
    ),
)
