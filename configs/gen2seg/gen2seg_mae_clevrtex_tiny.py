"""gen2seg with the tiny ViT-MAE on small pictures in the layout of ClevrTex.

Paper: arXiv 2505.15263, the ClevrTex row of the training-domain table: the data path of it, on a CPU.
Command: ``GENSEG_DATA=/data python tools/train.py configs/gen2seg/gen2seg_mae_clevrtex_tiny.py``
(tiny copies of the datasets: tools/dataset_tools/make_tiny_*.py)
Hardware: 2 CPU cores, a minute.
Expected: a falling loss; it is not a model to report numbers of.
"""

_base_ = ['./gen2seg_mae_coco_tiny.py']

part = dict(
    type='genseg_mm.ClevrTexDataset',
    data_root='{{$GENSEG_DATA:data}}/clevrtex/',
    split='train',
    pipeline=_base_.train_dataloader.dataset.datasets[0].pipeline,
)
train_dataloader = dict(dataset=dict(datasets=[part]))
