"""GenMask on RefCOCO with Wan2.1 1.3B and its own text encoder, umT5, in place of the paper's Qwen2.5-VL.

Ours: nothing fresh has to be trained before the model follows a text, and no prompt sees the image.
Command: ``tools/dist_train.sh configs/genmask/refcoco_wan2.1-1.3b_umt5.py 8``
Hardware: 8 GPUs of 80 GB; hours not measured. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

released = 'Wan-AI/Wan2.1-T2V-1.3B-Diffusers'
model = dict(
    codec=dict(autoencoder=dict(pretrained_model_name_or_path=released)),
    prompt_encoder=dict(
        _delete_=True,
        type='genseg_mm.T5PromptEncoder',
        encoder=dict(
            type='transformers.UMT5EncoderModel.from_pretrained',
            pretrained_model_name_or_path=released,
            subfolder='text_encoder',
            dtype='bfloat16',
        ),
        tokenizer=released,
        tokenizer_kwargs=dict(subfolder='tokenizer'),
        max_length=512,
        padding='max_length',  # Wan has no text mask: zeros
        clean=True,
    ),
    backbone=dict(
        transformer=dict(pretrained_model_name_or_path=released),
        prompt_dims=None,  # its own text projection: 4096
    ),
)
