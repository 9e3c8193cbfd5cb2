# COCO instances for MAE colorers, 224 x 224. Layout: <root>/coco/{train2017/, val2017/,
# annotations/instances_{train,val}2017.json}; the root is the environment variable GENSEG_DATA (default: data).
data_root = '{{$GENSEG_DATA:data}}/coco/'
image_size = (224, 224)  # (width, height), as AntialiasedResize takes it

train_pipeline = [
    dict(type='genseg_mm.LoadImage'),
    # Polygons of COCO are not all in order; what is left out is counted and logged.
    dict(type='genseg_mm.LoadInstanceMap', invalid='skip'),
    # As Pillow of the reference, but for a grey level here and there: antialiased pictures, ids by its nearest.
    dict(type='genseg_mm.AntialiasedResize', scale=image_size, backend='torch'),
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
                type='genseg_mm.CocoInstanceDataset',
                data_root=data_root,
                ann_file='annotations/instances_train2017.json',
                data_prefix=dict(img='train2017/'),
                classes='all',  # 'coco_10' and 'coco_5' are the small subsets
                filter_cfg=dict(filter_empty_gt=True, min_size=32),
                pipeline=train_pipeline,
            )
        ],
    ),
)
