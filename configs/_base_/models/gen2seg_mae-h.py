# gen2seg on a pretrained ViT-MAE: huge here; base and large override `pretrained`.
model = dict(
    type='genseg_mm.Gen2Seg',
    data_preprocessor=dict(type='genseg_mm.GenSegDataPreprocessor'),
    colorer=dict(type='genseg_mm.MAEColorer', pretrained='facebook/vit-mae-huge'),
    loss=dict(type='genseg_mm.InstanceColoringLoss', formula='reference'),
    normalize='batch',  # the reference's scale: extremes of the whole batch
    preset='as_published',  # at inference: gamma 0.7, 8 bits, Lanczos, the folder's own mean, std and size
    prompting=dict(rule='reference'),
)
