# The pictures of shapes_instance_textured.py alone, for generative pretraining: nothing reads the instances.
_base_ = ['./shapes_instance_textured.py']

parts = _base_.train_dataloader.dataset.datasets
train_dataloader = dict(
    batch_size=16, dataset=dict(datasets=[dict(part, num_scenes=10000) for part in parts])
)
val_dataloader = test_dataloader = val_evaluator = test_evaluator = None
