"""GenMask on RefCOCO with Z-Image 6B, the image as extra tokens.

Ours: the paper takes Wan2.1 1.3B and the prompts of Qwen2.5-VL-7B. Here the DiT keeps the text encoders that it was
released with: Qwen3 4B's last state but one, in its chat template (512 tokens).
Command: ``tools/dist_train.sh configs/genmask/refcoco_z-image.py 8``
Hardware: see the memory table of configs/genmask/README.md. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py', '../_base_/strategies/fsdp2.py']

released = 'Tongyi-MAI/Z-Image'
model = dict(
    codec=dict(
        autoencoder=dict(type='diffusers.AutoencoderKL.from_pretrained', pretrained_model_name_or_path=released)
    ),
    prompt_encoder=dict(
        _delete_=True,
        type='genseg_mm.LanguageModelPromptEncoder',
        encoder=dict(
            type='transformers.Qwen3Model.from_pretrained',
            pretrained_model_name_or_path=released,
            subfolder='text_encoder',
            dtype='bfloat16',
        ),
        tokenizer=released,
        tokenizer_kwargs=dict(subfolder='tokenizer'),
        hidden_layer=-2,
        max_length=512,
        chat=dict(enable_thinking=True),
    ),
    backbone=dict(
        family='z_image',
        transformer=dict(
            type='diffusers.ZImageTransformer2DModel.from_pretrained', pretrained_model_name_or_path=released
        ),
        prompt_dims=None,  # its own text projection: 2560
    ),
)
