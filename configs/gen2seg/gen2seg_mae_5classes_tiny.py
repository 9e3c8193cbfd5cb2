"""gen2seg with the tiny ViT-MAE on five classes of Hypersim (and vehicles).

Paper: arXiv 2505.15263, "only 5 classes" of the training-domain table: the data path of it, on a CPU.
Command: ``GENSEG_DATA=/data python tools/train.py configs/gen2seg/gen2seg_mae_5classes_tiny.py``
(tiny copies of the datasets: tools/dataset_tools/make_tiny_*.py)
Hardware: 2 CPU cores, a minute.
Expected: a falling loss; it is not a model to report numbers of.
"""

_base_ = ['./gen2seg_mae_hypersim-vkitti2_tiny.py']

parts = _base_.train_dataloader.dataset.datasets
parts[0].pipeline.insert(2, dict(type='genseg_mm.KeepClasses', classes='hypersim_5'))
parts[0].ignore_background = True
train_dataloader = dict(dataset=dict(datasets=parts))
