# As coco_points_224.py for Stable Diffusion colorers: the longer side at the resolution of their folder (768). Pictures
# then differ in size, so a batch holds one.
_base_ = ['./coco_points_224.py']

val_dataloader = dict(batch_size=1)
test_dataloader = dict(batch_size=1)
