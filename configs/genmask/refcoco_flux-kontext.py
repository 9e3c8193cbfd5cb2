"""GenMask on RefCOCO with FLUX.1 Kontext 12B, the image as extra tokens.

Ours: the paper takes Wan2.1 1.3B and the prompts of Qwen2.5-VL-7B. Here the DiT keeps the text encoders that it was
released with: CLIP-L's pooled vector and T5-XXL (512 tokens).
Command: ``tools/dist_train.sh configs/genmask/refcoco_flux-kontext.py 8``
Hardware: see the memory table of configs/genmask/README.md. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py', '../_base_/strategies/fsdp2.py']

released = 'black-forest-labs/FLUX.1-Kontext-dev'
model = dict(
    codec=dict(
        autoencoder=dict(type='diffusers.AutoencoderKL.from_pretrained', pretrained_model_name_or_path=released)
    ),
    prompt_encoder=dict(
        _delete_=True,
        type='genseg_mm.CombinedPromptEncoder',
        parts=[
            dict(
                type='genseg_mm.CLIPPromptEncoder',
                encoder=dict(
                    type='transformers.CLIPTextModel.from_pretrained',
                    pretrained_model_name_or_path=released,
                    subfolder='text_encoder',
                    dtype='bfloat16',
                ),
                tokenizer=released,
                tokenizer_kwargs=dict(subfolder='tokenizer'),
                keep='pooled',
            ),
            dict(
                type='genseg_mm.T5PromptEncoder',
                encoder=dict(
                    type='transformers.T5EncoderModel.from_pretrained',
                    pretrained_model_name_or_path=released,
                    subfolder='text_encoder_2',
                    dtype='bfloat16',
                ),
                tokenizer=released,
                tokenizer_kwargs=dict(subfolder='tokenizer_2'),
                max_length=512, padding='max_length', reads_padding=True,
            ),
        ],
    ),
    backbone=dict(
        family='flux_kontext',
        transformer=dict(
            type='diffusers.FluxTransformer2DModel.from_pretrained', pretrained_model_name_or_path=released
        ),
        prompt_dims=None,  # its own text projection: 4096
    ),
)
