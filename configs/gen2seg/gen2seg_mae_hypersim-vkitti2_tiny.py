"""gen2seg with the tiny ViT-MAE on small pictures in the layout of Hypersim and Virtual KITTI 2.

Paper: arXiv 2505.15263, the MAE rows of the main table: the data path of it, on a CPU.
Command: ``GENSEG_DATA=/data python tools/train.py configs/gen2seg/gen2seg_mae_hypersim-vkitti2_tiny.py``
(tiny copies of the datasets: tools/dataset_tools/make_tiny_*.py)
Hardware: 2 CPU cores, a minute.
Expected: a falling loss; it is not a model to report numbers of.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/gen2seg_mae_tiny.py',
    '../_base_/datasets/hypersim_vkitti2_224.py',
    '../_base_/datasets/coco_points_224.py',
    '../_base_/schedules/adamw_cosine_tiny.py',
]

max_iters = 200
size = (64, 64)  # of the tiny ViT-MAE
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
parts = _base_.train_dataloader.dataset.datasets
parts[0].pipeline[2].scale = size
parts[1].pipeline[2].crop_size = size
parts[1].update(scenes=['Scene01', 'Scene02'], variations=['fog', 'morning'])
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(datasets=parts))
points = _base_.val_dataloader
points.update(num_workers=0, persistent_workers=False)
val_dataloader = points
test_dataloader = dict(points, _delete_=True)
auto_scale_lr = dict(enable=False, base_batch_size=2)
