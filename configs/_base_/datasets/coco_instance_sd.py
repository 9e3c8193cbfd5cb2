# As coco_instance_224.py, at 480 x 640 for Stable Diffusion colorers.
_base_ = ['./coco_instance_224.py']

train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (640, 480)  # (width, height)
part = dict(_base_.train_dataloader.dataset.datasets[0], pipeline=train_pipeline)
train_dataloader = dict(batch_size=2, dataset=dict(datasets=[part]))
