"""gen2seg's Stable Diffusion recipe, tiny: a random SD pipeline on small pictures in the layout of the real datasets.

Paper: arXiv 2505.15263, the SD row of the main table: every part of it but the weights and the size.
Command: ``GENSEG_DATA=/data python tools/train.py configs/gen2seg/gen2seg_sd2_hypersim-vkitti2_tiny.py``
(tiny copies of the datasets: tools/dataset_tools/make_tiny_{hypersim,virtual_kitti2,coco}.py)
Hardware: 2 CPU cores, seconds.
Expected: a falling loss; a random VAE draws no sharp maps.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/gen2seg_sd2_tiny.py',
    '../_base_/datasets/hypersim_vkitti2_sd.py',
    '../_base_/datasets/coco_points_sd.py',
    '../_base_/schedules/adamw_cosine_tiny.py',
]

max_iters = 200
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
parts = _base_.train_dataloader.dataset.datasets
parts[0].pipeline[2].scale = (96, 72)
parts[1].pipeline[2].crop_size = (72, 200)
parts[1].update(scenes=['Scene01', 'Scene02'], variations=['fog', 'morning'])
train_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(datasets=parts)
)
points = _base_.val_dataloader
points.update(num_workers=0, persistent_workers=False)
val_dataloader = points
test_dataloader = dict(points, _delete_=True)
auto_scale_lr = dict(enable=False, base_batch_size=2)
