"""GenMask on RefCOCO with Qwen-Image-Edit 20B, the image as extra tokens at timestep 0.

Ours: the paper takes Wan2.1 1.3B. The DiT keeps the text encoder that it was released with: Qwen2.5-VL-7B reads the
words and sees the image, as the paper's does, in Qwen-Image-Edit's own template and at its size of about 384 x 384.
Command: ``tools/dist_train.sh configs/genmask/refcoco_qwen-image-edit.py 8``
Hardware: see the memory table of configs/genmask/README.md. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco_qwen-image.py']

released = 'Qwen/Qwen-Image-Edit-2511'
model = dict(
    codec=dict(autoencoder=dict(pretrained_model_name_or_path=released)),
    prompt_encoder=dict(
        encoder=dict(pretrained_model_name_or_path=released),
        processor=released,
        image_processor_kwargs=dict(subfolder='processor'),
        system_prompt=dict(mask='qwen_image_edit'),
        image_text='Picture 1: ',
        looks_at_images=True,
        max_pixels=392 * 392,  # 14 x 14 tokens of 28 pixels
    ),
    backbone=dict(
        family='qwen_image_edit', transformer=dict(pretrained_model_name_or_path=released)
    ),
)
