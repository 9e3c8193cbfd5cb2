"""GenMask on RefCOCO with Sana 1.6B (32x autoencoder), the image as extra channels.

Ours: the paper takes Wan2.1 1.3B and the prompts of Qwen2.5-VL-7B. Here the DiT keeps the text encoders that it was
released with: Gemma 2 2B, 300 tokens.
Command: ``tools/dist_train.sh configs/genmask/refcoco_sana-1.6b.py 8``
Hardware: see the memory table of configs/genmask/README.md. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

released = 'Efficient-Large-Model/Sana_1600M_512px_diffusers'
model = dict(
    codec=dict(
        autoencoder=dict(type='diffusers.AutoencoderDC.from_pretrained', pretrained_model_name_or_path=released)
    ),
    prompt_encoder=dict(
        _delete_=True,
        type='genseg_mm.LanguageModelPromptEncoder',
        encoder=dict(
            type='transformers.Gemma2Model.from_pretrained',
            pretrained_model_name_or_path=released,
            subfolder='text_encoder',
            dtype='bfloat16',
        ),
        tokenizer=released,
        tokenizer_kwargs=dict(subfolder='tokenizer'),
        max_length=300,
        lowercase=True,
        instruction=None,  # 'sana' puts the pipeline's instruction before every prompt
    ),
    backbone=dict(
        family='sana',
        transformer=dict(
            type='diffusers.SanaTransformer2DModel.from_pretrained', pretrained_model_name_or_path=released
        ),
        prompt_dims=None,  # its own text projection: 2304
    ),
)
