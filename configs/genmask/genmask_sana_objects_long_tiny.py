"""The shipped GenMask on scenes of objects: the second half, all kinds of sentences, after *_long_tiny_names.py.

Paper: arXiv 2603.23906; MiniLM in place of its text encoder, and the path of masks starts from the image.
Command: ``python tools/train.py configs/genmask/genmask_sana_objects_long_tiny.py --cfg-options load_from=CHECKPOINT``,
CHECKPOINT being the last one of the other config; the shipped weights went on once more, see configs/genmask/README.md.
Hardware: one CPU core, 55 minutes for all parts. Expected: oIoU 52.0 on new scenes, 40.6 in new wordings (seed 0).
"""

_base_ = ['./genmask_sana_objects_long_tiny_names.py']

max_iters = 3900
train_dataloader = dict(
    dataset=dict(
        datasets=[
            # Scenes that the first half has not seen, small objects among them.
            dict(
                _base_.trained_on,
                num_scenes=16000,
                task='referring',
                seed=1,
                kind_weights={'name': 3},
                cache=True,
            ),
            dict(_base_.trained_on, num_scenes=16000, task='text_to_image', seed=1),
        ]
    )
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=900, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=650)
