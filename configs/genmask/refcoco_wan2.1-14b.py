"""GenMask on RefCOCO with Wan2.1 14B and its own text encoder, umT5.

Ours: the paper takes Wan2.1 1.3B and the prompts of Qwen2.5-VL-7B.
Command: ``tools/dist_train.sh configs/genmask/refcoco_wan2.1-14b.py 8``
Hardware: see the memory table of configs/genmask/README.md. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco_wan2.1-1.3b_umt5.py', '../_base_/strategies/fsdp2.py']

released = 'Wan-AI/Wan2.1-T2V-14B-Diffusers'
model = dict(
    codec=dict(autoencoder=dict(pretrained_model_name_or_path=released)),
    prompt_encoder=dict(
        encoder=dict(pretrained_model_name_or_path=released), tokenizer=released
    ),
    backbone=dict(transformer=dict(pretrained_model_name_or_path=released)),
)
