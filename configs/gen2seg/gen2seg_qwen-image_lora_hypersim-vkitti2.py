"""gen2seg with Qwen-Image 20B and LoRA in place of Stable Diffusion 2, on bfloat16 weights.

Ours: arXiv 2505.15263 took Stable Diffusion 2 only; its data, loss and schedule.
Command: ``GENSEG_DATA=/data tools/dist_train.sh configs/gen2seg/gen2seg_qwen-image_lora_hypersim-vkitti2.py 4``
Hardware: 4 GPUs of 80 GB (the frozen transformer is 40.9 GB on each); hours not measured.
Expected: not measured yet; the paper's SD row is what to beat.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/gen2seg_dit.py',
    '../_base_/datasets/hypersim_vkitti2_sd.py',
    '../_base_/datasets/coco_points_sd.py',
    '../_base_/schedules/gen2seg_30k.py',
]

released = 'Qwen/Qwen-Image'
model = dict(
    colorer=dict(
        codec=dict(
            type='genseg_mm.LatentCodec',
            autoencoder=dict(
                type='diffusers.AutoencoderKLQwenImage.from_pretrained',
                pretrained_model_name_or_path=released,
                subfolder='vae',
            ),
        ),
        prompt_encoder=dict(  # as its pipeline: Qwen2.5-VL reads the words alone, in Qwen-Image's template
            type='genseg_mm.QwenVLPromptEncoder',
            encoder=dict(
                type='transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained',
                pretrained_model_name_or_path=released,
                subfolder='text_encoder',
                dtype='bfloat16',
            ),
            processor=released,
            tokenizer_kwargs=dict(subfolder='tokenizer'),
            system_prompt=dict(mask='qwen_image', image='qwen_image'),
            looks_at_images=False,
            max_length=1024,
        ),
        backbone=dict(
            type='genseg_mm.DiTBackbone',
            family='qwen_image',
            transformer=dict(
                type='diffusers.QwenImageTransformer2DModel.from_pretrained',
                pretrained_model_name_or_path=released,
                subfolder='transformer',
                torch_dtype='bfloat16',
            ),
            lora=dict(r=16, lora_alpha=16),
        ),
    )
)
optim_wrapper = dict(type='genseg_mm.AutocastOptimWrapper', optimizer=dict(lr=1e-4))
