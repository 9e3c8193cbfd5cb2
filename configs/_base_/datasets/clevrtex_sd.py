# As clevrtex_224.py, at the pictures' own 240 x 320 for Stable Diffusion colorers.
_base_ = ['./clevrtex_224.py']

train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (320, 240)  # (width, height)
part = dict(_base_.train_dataloader.dataset.datasets[0], pipeline=train_pipeline)
train_dataloader = dict(batch_size=4, dataset=dict(datasets=[part]))
