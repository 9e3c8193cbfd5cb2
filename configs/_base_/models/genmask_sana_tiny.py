# GenMask, tiny: Sana DiT from scratch, ByT5 bytes + T5 encoder trained jointly, closed-form patch codec.
model = dict(
    type='genseg_mm.GenMask',
    data_preprocessor=dict(type='genseg_mm.GenSegDataPreprocessor'),
    codec=dict(
        type='genseg_mm.LatentCodec',
        autoencoder=dict(
            type='genseg_mm.PatchCodec', weights='patch_codec_shapes.safetensors'
        ),
    ),
    prompt_encoder=dict(
        type='genseg_mm.T5PromptEncoder',
        encoder=dict(d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4),
        tokenizer='byt5',
        max_length=128,
    ),
    backbone=dict(
        type='genseg_mm.DiTBackbone',
        family='sana',
        transformer=dict(
            in_channels=40,
            out_channels=20,
            num_layers=4,
            num_attention_heads=3,
            attention_head_dim=32,
            num_cross_attention_heads=3,
            cross_attention_head_dim=32,
            cross_attention_dim=96,
            caption_channels=64,
            mlp_ratio=2.5,
            sample_size=8,
            patch_size=1,
            interpolation_scale=1,
        ),
    ),
    mask_head=dict(
        type='genseg_mm.GenerativeMaskHead',
        timesteps=dict(
            type='genseg_mm.JointTimesteps',
            # As good as pure noise. How far from it a mask shows through depends on codec and resolution; the paper's
            # 0.05 belongs to Wan's VAE.
            mask=dict(type='genseg_mm.LongTailTimesteps', a=0.0005),
            image=dict(type='genseg_mm.LogitNormalTimesteps'),
        ),
    ),
    processing_size=64,  # the longer side of its training; a Resize in a test pipeline goes before it
    generation=dict(guidance_scale=2.0),  # what little it knows of pictures is lost at more
)
