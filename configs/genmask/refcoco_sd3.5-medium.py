"""GenMask on RefCOCO with Stable Diffusion 3.5 medium, the image as extra channels.

Ours: the paper takes Wan2.1 1.3B and the prompts of Qwen2.5-VL-7B. Here the DiT keeps the text encoders that it was
released with: CLIP-L beside CLIP-G (77 tokens, and their pooled vectors), then T5-XXL (256).
Command: ``tools/dist_train.sh configs/genmask/refcoco_sd3.5-medium.py 8``
Hardware: see the memory table of configs/genmask/README.md. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

released = 'stabilityai/stable-diffusion-3.5-medium'
model = dict(
    codec=dict(
        autoencoder=dict(type='diffusers.AutoencoderKL.from_pretrained', pretrained_model_name_or_path=released)
    ),
    prompt_encoder=dict(
        _delete_=True,
        type='genseg_mm.CombinedPromptEncoder',
        parts=[
            [
                dict(
                    type='genseg_mm.CLIPPromptEncoder',
                    encoder=dict(
                        type='transformers.CLIPTextModelWithProjection.from_pretrained',
                        pretrained_model_name_or_path=released,
                        subfolder='text_encoder',
                        dtype='bfloat16',
                    ),
                    tokenizer=released,
                    tokenizer_kwargs=dict(subfolder='tokenizer'),
                ),
                dict(
                    type='genseg_mm.CLIPPromptEncoder',
                    encoder=dict(
                        type='transformers.CLIPTextModelWithProjection.from_pretrained',
                        pretrained_model_name_or_path=released,
                        subfolder='text_encoder_2',
                        dtype='bfloat16',
                    ),
                    tokenizer=released,
                    tokenizer_kwargs=dict(subfolder='tokenizer_2'),
                ),
            ],
            dict(
                type='genseg_mm.T5PromptEncoder',
                encoder=dict(
                    type='transformers.T5EncoderModel.from_pretrained',
                    pretrained_model_name_or_path=released,
                    subfolder='text_encoder_3',
                    dtype='bfloat16',
                ),
                tokenizer=released,
                tokenizer_kwargs=dict(subfolder='tokenizer_3'),
                max_length=256, padding='max_length', reads_padding=True,
            ),
        ],
    ),
    backbone=dict(
        family='sd3',
        transformer=dict(
            type='diffusers.SD3Transformer2DModel.from_pretrained', pretrained_model_name_or_path=released
        ),
        prompt_dims=None,  # its own text projection: 4096
    ),
)
