# ClevrTex for MAE colorers, 224 x 224 (pictures have 240 x 320). Layout: <root>/clevrtex/ with CLEVRTEX_full_*.png,
# *_flat.png and *.json anywhere below; the root is the environment variable GENSEG_DATA (default: data).
data_root = '{{$GENSEG_DATA:data}}/clevrtex/'
image_size = (224, 224)  # (width, height)

train_pipeline = [
    dict(type='genseg_mm.LoadImage'),
    dict(type='genseg_mm.LoadInstanceMap'),
    # By Pillow: antialiased pictures, ids by its nearest, as in the reference.
    dict(type='genseg_mm.AntialiasedResize', scale=image_size, backend='pillow'),
    dict(type='genseg_mm.RandomInstanceFlip', prob=0.5, direction='horizontal'),
    dict(type='genseg_mm.PackGenSegInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='genseg_mm.RatioInfiniteSampler'),
    dataset=dict(
        type='genseg_mm.MixedDataset',  # for its seed: flips are the same after a restart
        seed=0,
        datasets=[
            dict(
                type='genseg_mm.ClevrTexDataset',
                data_root=data_root,
                variant='full',
                split='train',
                pipeline=train_pipeline,
            )
        ],
    ),
)
