# gen2seg on a released DiT (ours): a leaf adds the colorer's codec, prompt encoder and backbone, which are those of
# GenMask's configs. Transformer trained, autoencoder frozen, the empty prompt embedded once.
model = dict(
    type='genseg_mm.Gen2Seg',
    data_preprocessor=dict(type='genseg_mm.GenSegDataPreprocessor'),
    colorer=dict(
        type='genseg_mm.DiTColorer',
        prompt='',
        sigma=1.0,
        prediction='velocity',
        gradient_checkpointing=True,
    ),
    loss=dict(type='genseg_mm.InstanceColoringLoss', formula='reference'),
    # Each picture over its own extremes, as at inference; the reference's 'batch' couples the pictures of a batch.
    normalize='image',
    processing_size=768,  # the longer side at inference, as for Stable Diffusion
    prompting=dict(rule='reference'),
)
