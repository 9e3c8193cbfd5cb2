# gen2seg, tiny: ViT-MAE, encoder and decoder with nothing masked, from scratch.
model = dict(
    type='genseg_mm.Gen2Seg',
    data_preprocessor=dict(type='genseg_mm.GenSegDataPreprocessor'),
    colorer=dict(
        type='genseg_mm.MAEColorer',
        config=dict(
            image_size=64,
            patch_size=4,
            hidden_size=96,
            num_hidden_layers=4,
            num_attention_heads=3,
            intermediate_size=192,
            decoder_hidden_size=96,
            decoder_num_hidden_layers=2,
            decoder_num_attention_heads=3,
            decoder_intermediate_size=192,
        ),
    ),
    loss=dict(type='genseg_mm.InstanceColoringLoss', formula='reference'),
    # The reference's scale, 'batch', couples the samples of a batch; it is for pretrained weights.
    normalize='sigmoid',
    bias=-2.0,
    prompting=dict(radius=34.0, sigma=0.005),
)
