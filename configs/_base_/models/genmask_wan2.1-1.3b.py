# GenMask, full: Wan2.1 1.3B with its VAE, prompts from Qwen2.5-VL-7B in place of umT5 (the paper's model). Qwen2.5-VL
# is frozen (ours; the paper does not say), and its 3584 dimensions enter through a fresh text projection.
wan = 'Wan-AI/Wan2.1-T2V-1.3B-Diffusers'
qwen = 'Qwen/Qwen2.5-VL-7B-Instruct'
model = dict(
    type='genseg_mm.GenMask',
    data_preprocessor=dict(type='genseg_mm.GenSegDataPreprocessor'),
    codec=dict(
        type='genseg_mm.LatentCodec',
        autoencoder=dict(
            type='diffusers.AutoencoderKLWan.from_pretrained',
            pretrained_model_name_or_path=wan,
            subfolder='vae',
        ),
    ),
    prompt_encoder=dict(
        type='genseg_mm.QwenVLPromptEncoder',
        encoder=dict(
            type='transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained',
            pretrained_model_name_or_path=qwen,
            dtype='bfloat16',
        ),
        processor=qwen,
        hidden_layer=-1,  # ours; so are the system prompt and that the image's states are kept
        keep='all',
        max_length=512,  # an image of 512 x 512 takes 324 tokens
        padding='max_length',  # Wan has no text mask
    ),
    backbone=dict(
        type='genseg_mm.DiTBackbone',
        family='wan',
        transformer=dict(
            type='diffusers.WanTransformer3DModel.from_pretrained',
            pretrained_model_name_or_path=wan,
            subfolder='transformer',
        ),
        prompt_dims=3584,
        gradient_checkpointing=True,
    ),
    mask_head=dict(
        type='genseg_mm.GenerativeMaskHead',
        timesteps=dict(
            type='genseg_mm.JointTimesteps',
            mask=dict(type='genseg_mm.LongTailTimesteps', a=0.05, overflow='resample'),
            image=dict(type='genseg_mm.LogitNormalTimesteps', loc=0.0, scale=1.0),
        ),
        num_steps=1,
    ),
    image_prompt_drop_prob=0.1,  # ours; for guidance of pictures, which the paper trains for
)
