# As coco_points_224.py, at 480 x 640 for Stable Diffusion colorers.
_base_ = ['./coco_points_224.py']

test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (640, 480)  # (width, height)
val_dataloader = dict(batch_size=4, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=4, dataset=dict(pipeline=test_pipeline))
