# GenMask, full: Wan2.1 1.3B with its VAE and umT5 (the paper replaces umT5 by Qwen2.5-VL-7B).
wan = 'Wan-AI/Wan2.1-T2V-1.3B-Diffusers'
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
        type='genseg_mm.T5PromptEncoder',
        encoder=dict(
            type='transformers.UMT5EncoderModel.from_pretrained',
            pretrained_model_name_or_path=wan,
            subfolder='text_encoder',
            dtype='bfloat16',
        ),
        tokenizer=wan,
        tokenizer_kwargs=dict(subfolder='tokenizer'),
        max_length=128,
        padding='max_length',
    ),
    backbone=dict(
        type='genseg_mm.DiTBackbone',
        family='wan',
        transformer=dict(
            type='diffusers.WanTransformer3DModel.from_pretrained',
            pretrained_model_name_or_path=wan,
            subfolder='transformer',
        ),
        gradient_checkpointing=True,
    ),
    mask_head=dict(
        type='genseg_mm.GenerativeMaskHead',
        timesteps=dict(
            type='genseg_mm.JointTimesteps',
            mask=dict(type='genseg_mm.LongTailTimesteps', a=0.05),
            image=dict(type='genseg_mm.LogitNormalTimesteps'),
        ),
    ),
)
