"""GenMask on RefCOCO with FLUX.2 klein 4B (the undistilled base, Apache 2.0), the image as extra tokens at time 10.

Ours: the paper takes Wan2.1 1.3B and the prompts of Qwen2.5-VL-7B. Here the DiT keeps the text encoder that it was
released with: three hidden states of Qwen3 4B side by side, in its chat template (512 tokens, padding read as well).
Command: ``tools/dist_train.sh configs/genmask/refcoco_flux2-klein.py 8``
Hardware: see the memory table of configs/genmask/README.md. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py', '../_base_/strategies/fsdp2.py']

released = 'black-forest-labs/FLUX.2-klein-base-4B'
model = dict(
    codec=dict(
        autoencoder=dict(type='diffusers.AutoencoderKLFlux2.from_pretrained', pretrained_model_name_or_path=released)
    ),
    prompt_encoder=dict(
        _delete_=True,
        type='genseg_mm.LanguageModelPromptEncoder',
        encoder=dict(
            type='transformers.Qwen3ForCausalLM.from_pretrained',
            pretrained_model_name_or_path=released,
            subfolder='text_encoder',
            dtype='bfloat16',
        ),
        tokenizer=released,
        tokenizer_kwargs=dict(subfolder='tokenizer'),
        hidden_layer=(9, 18, 27),
        max_length=512,
        padding='max_length',  # FLUX.2 has no text mask
        reads_padding=True,
        chat=dict(enable_thinking=False),
    ),
    backbone=dict(
        family='flux2',
        transformer=dict(
            type='diffusers.Flux2Transformer2DModel.from_pretrained', pretrained_model_name_or_path=released
        ),
        prompt_dims=None,  # its own text projection: 7680
    ),
)
