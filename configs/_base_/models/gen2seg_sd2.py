# gen2seg on Stable Diffusion 2: UNet trained, VAE and text encoder frozen. `pretrained` may be a local folder.
model = dict(
    type='genseg_mm.Gen2Seg',
    data_preprocessor=dict(type='genseg_mm.GenSegDataPreprocessor'),
    colorer=dict(
        type='genseg_mm.SDColorer',
        pretrained='stabilityai/stable-diffusion-2',
        gradient_checkpointing=True,
    ),
    loss=dict(type='genseg_mm.InstanceColoringLoss', formula='reference'),
    normalize='batch',  # the reference's scale: extremes of the whole batch
    # At inference: the folder's processing resolution (768), stretch with the padding, 8 bits, Lanczos.
    # model.processing_size and model.output say otherwise.
    preset='as_published',
    prompting=dict(rule='reference'),
)
