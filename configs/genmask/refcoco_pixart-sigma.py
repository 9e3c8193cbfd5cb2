"""GenMask on RefCOCO with PixArt-Sigma 0.6B, the image as extra channels (a start, not a velocity model).

Ours: the paper takes Wan2.1 1.3B and the prompts of Qwen2.5-VL-7B. Here the DiT keeps the text encoders that it was
released with: T5-XXL, 300 tokens.
Command: ``tools/dist_train.sh configs/genmask/refcoco_pixart-sigma.py 8``
Hardware: see the memory table of configs/genmask/README.md. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

released = 'PixArt-alpha/PixArt-Sigma-XL-2-512-MS'
model = dict(
    codec=dict(
        autoencoder=dict(type='diffusers.AutoencoderKL.from_pretrained', pretrained_model_name_or_path=released)
    ),
    prompt_encoder=dict(
        _delete_=True,
        type='genseg_mm.T5PromptEncoder',
        encoder=dict(
            type='transformers.T5EncoderModel.from_pretrained',
            pretrained_model_name_or_path=released,
            subfolder='text_encoder',
            dtype='bfloat16',
        ),
        tokenizer=released,
        tokenizer_kwargs=dict(subfolder='tokenizer'),
        max_length=300,
        lowercase=True,
    ),
    backbone=dict(
        family='pixart',
        transformer=dict(
            type='diffusers.PixArtTransformer2DModel.from_pretrained', pretrained_model_name_or_path=released
        ),
        prompt_dims=None,  # its own text projection: 4096
    ),
)
