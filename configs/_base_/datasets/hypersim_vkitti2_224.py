# Hypersim and Virtual KITTI 2, nine batches to one, at the size of gen2seg's MAE rows (arXiv 2505.15263).
# Layout: <root>/hypersim/{ai_*/, index.csv}, <root>/vkitti2/Scene*/; the root is the environment variable GENSEG_DATA
# (default: data). Make the index once, it says which frames have no instances:
#     python tools/dataset_tools/prepare_hypersim.py data/hypersim --out data/hypersim/index.csv --workers 8
data_root = '{{$GENSEG_DATA:data}}/'
hypersim_pipeline = [
    dict(type='genseg_mm.LoadImage'),
    dict(type='genseg_mm.LoadInstanceMap'),
    # As Pillow of the reference, but for a grey level here and there: antialiased pictures, ids by its nearest.
    dict(type='genseg_mm.AntialiasedResize', scale=(224, 224), backend='torch'),
    dict(type='genseg_mm.RandomInstanceFlip', prob=0.5, direction='horizontal'),
    dict(type='genseg_mm.PackGenSegInputs'),
]
vkitti2_pipeline = [
    dict(type='genseg_mm.LoadImage'),
    dict(type='genseg_mm.LoadInstanceMap'),
    dict(type='genseg_mm.RandomInstanceCrop', crop_size=(224, 224)),
    dict(type='genseg_mm.RandomInstanceFlip', prob=0.5, direction='horizontal'),
    dict(type='genseg_mm.PackGenSegInputs'),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    # The source is drawn for every 2 pictures, an iteration of the reference, on however many GPUs.
    sampler=dict(type='genseg_mm.RatioInfiniteSampler', ratio=[9, 1], group=2),
    dataset=dict(
        type='genseg_mm.MixedDataset',
        seed=0,
        datasets=[
            dict(
                type='genseg_mm.HypersimDataset',
                data_root=data_root + 'hypersim',
                index_file='index.csv',  # None takes every frame
                empty='redraw',
                pipeline=hypersim_pipeline,
            ),
            dict(
                type='genseg_mm.VirtualKITTI2Dataset',
                data_root=data_root + 'vkitti2',
                pipeline=vkitti2_pipeline,
            ),
        ],
    ),
)
