"""gen2seg with the tiny ViT-MAE on five classes of Hypersim (and vehicles).

Paper: arXiv 2505.15263, "only 5 classes" of the training-domain table: the data path of it, on a CPU.
Command: ``GENSEG_DATA=/data python tools/train.py configs/gen2seg/gen2seg_mae_5classes_tiny.py``
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
parts[0].pipeline.insert(2, dict(type='genseg_mm.KeepClasses', classes='hypersim_5'))
parts[0].ignore_background = True
parts[0].pipeline[3].scale = size
parts[1].pipeline[2].crop_size = size
parts[1].update(scenes=['Scene01', 'Scene02'], variations=['fog', 'morning'])
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(datasets=parts))
points = _base_.val_dataloader
points.update(num_workers=0, persistent_workers=False)
points.dataset.pipeline[1].scale = size
val_dataloader = points
# All sizes: a tiny copy need not have objects of each.
test_dataloader = dict(points, _delete_=True)
