# ClevrTex for Stable Diffusion colorers at its own size, 240 x 320. Layout: <root>/clevrtex/ with CLEVRTEX_full_*.png,
# *_flat.png and *.json anywhere below; the root is the environment variable GENSEG_DATA (default: data).
data_root = '{{$GENSEG_DATA:data}}/clevrtex/'
image_size = (320, 240)  # (width, height)

train_pipeline = [
    dict(type='genseg_mm.LoadImage'),
    dict(type='genseg_mm.LoadInstanceMap'),
    dict(type='mmseg.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='genseg_mm.PackGenSegInputs'),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='genseg_mm.RatioInfiniteSampler'),
    dataset=dict(
        type='genseg_mm.ClevrTexDataset',
        data_root=data_root,
        variant='full',
        split='train',
        pipeline=train_pipeline,
    ),
)
