"""gen2seg with the tiny ViT-MAE on small pictures in the layout of COCO.

Paper: arXiv 2505.15263, the COCO row of the training-domain table: the data path of it, on a CPU.
Command: ``GENSEG_DATA=/data python tools/train.py configs/gen2seg/gen2seg_mae_coco_tiny.py``
(tiny copies of the datasets: tools/dataset_tools/make_tiny_*.py)
Hardware: 2 CPU cores, a minute.
Expected: a falling loss; it is not a model to report numbers of.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/gen2seg_mae_tiny.py',
    '../_base_/datasets/coco_instance_224.py',
    '../_base_/datasets/coco_points_224.py',
    '../_base_/schedules/adamw_cosine_tiny.py',
]

max_iters = 200
size = (64, 64)  # of the tiny ViT-MAE
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
train = _base_.train_dataloader
train.update(batch_size=4, num_workers=0, persistent_workers=False)
train.dataset.datasets[0].pipeline[2].scale = size
train_dataloader = train
points = _base_.val_dataloader
points.update(num_workers=0, persistent_workers=False)
val_dataloader = points
test_dataloader = dict(points, _delete_=True)
auto_scale_lr = dict(enable=False, base_batch_size=4)
