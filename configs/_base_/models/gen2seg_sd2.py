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
    prompting=dict(rule='reference'),
)
