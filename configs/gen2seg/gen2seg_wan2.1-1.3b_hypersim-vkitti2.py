"""gen2seg with Wan2.1 1.3B in place of Stable Diffusion 2: a rectified-flow DiT as the instance colorer.

Ours: arXiv 2505.15263 took Stable Diffusion 2 only; its data, loss and schedule.
Command: ``GENSEG_DATA=/data tools/dist_train.sh configs/gen2seg/gen2seg_wan2.1-1.3b_hypersim-vkitti2.py 4``
Hardware: 4 GPUs of 80 GB (weights and AdamW 22.7 GB); hours not measured.
Expected: not measured yet; the paper's SD row is what to beat.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/gen2seg_dit.py',
    '../_base_/datasets/hypersim_vkitti2_sd.py',
    '../_base_/datasets/coco_points_sd.py',
    '../_base_/schedules/gen2seg_30k.py',
]

released = 'Wan-AI/Wan2.1-T2V-1.3B-Diffusers'
model = dict(
    colorer=dict(
        codec=dict(
            type='genseg_mm.LatentCodec',
            autoencoder=dict(
                type='diffusers.AutoencoderKLWan.from_pretrained',
                pretrained_model_name_or_path=released,
                subfolder='vae',
            ),
        ),
        prompt_encoder=dict(  # its own: umT5, 512 tokens, padding zeroed
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
            padding='max_length',
            clean=True,
        ),
        backbone=dict(
            type='genseg_mm.DiTBackbone',
            family='wan',
            transformer=dict(
                type='diffusers.WanTransformer3DModel.from_pretrained',
                pretrained_model_name_or_path=released,
                subfolder='transformer',
            ),
        ),
    )
)
optim_wrapper = dict(type='genseg_mm.AutocastOptimWrapper')  # bfloat16; the decoder and the loss stay float32
default_hooks = dict(checkpoint=dict(interval=1000))
