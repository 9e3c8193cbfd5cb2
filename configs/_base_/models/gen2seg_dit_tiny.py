# gen2seg, tiny: a Sana DiT as one-step colorer (sigma 1, constant prompt) on 2x2 patches, from scratch.
# Read as data: as a velocity, the map would hold the image until every token has learned to take it away.
model = dict(
    type='genseg_mm.Gen2Seg',
    data_preprocessor=dict(type='genseg_mm.GenSegDataPreprocessor'),
    colorer=dict(
        type='genseg_mm.DiTColorer',
        codec=dict(
            type='genseg_mm.LatentCodec',
            autoencoder=dict(type='genseg_mm.PatchCodec', patch_size=2),
        ),
        backbone=dict(
            type='genseg_mm.DiTBackbone',
            family='sana',
            transformer=dict(
                in_channels=12,
                out_channels=12,
                num_layers=4,
                num_attention_heads=3,
                attention_head_dim=32,
                num_cross_attention_heads=3,
                cross_attention_head_dim=32,
                cross_attention_dim=96,
                caption_channels=32,
                mlp_ratio=2.5,
                sample_size=32,
                patch_size=2,
                interpolation_scale=1,
            ),
        ),
        prediction='data',
    ),
    loss=dict(type='genseg_mm.InstanceColoringLoss', formula='reference'),
    normalize='sigmoid',
    bias=-2.0,
    processing_size=64,  # the longer side of its training
    prompting=dict(radius=44.0, sigma=0.005),
)
