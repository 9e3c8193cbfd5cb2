# As shapes_instance.py, but half of the scenes on grounds textured with the objects' own palette. One stream of
# samples for all processes: a run may be resumed with another number of them.
_base_ = ['./shapes_instance.py']

grounds = ('plain', 'textured')
train = _base_.train_dataloader.dataset
train_dataloader = dict(
    sampler=dict(ratio=[1, 1], seed=0),
    dataset=dict(
        _delete_=True,
        type='genseg_mm.MixedDataset',
        seed=0,
        datasets=[dict(train, num_scenes=20000, grounds=ground) for ground in grounds],
    ),
)
# One radius is chosen on 'val' (both grounds) and used on all other parts.
parts = [
    dict(part, grounds=ground, subset=prefix * (part.split == 'test') + part.subset)
    for ground, prefix in (('plain', ''), ('textured', 'textured_'))
    for part in _base_.val_dataloader.dataset.datasets
]
val_dataloader = dict(dataset=dict(datasets=parts))
test_dataloader = val_dataloader
