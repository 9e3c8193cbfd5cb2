# As hypersim_vkitti2_224.py, at the sizes of gen2seg's Stable Diffusion rows.
_base_ = ['./hypersim_vkitti2_224.py']

hypersim_pipeline = _base_.hypersim_pipeline
hypersim_pipeline[2].scale = (640, 480)  # (width, height)
vkitti2_pipeline = _base_.vkitti2_pipeline
vkitti2_pipeline[2].crop_size = (368, 1024)  # (height, width)
parts = _base_.train_dataloader.dataset.datasets
train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(parts[0], pipeline=hypersim_pipeline),
            dict(parts[1], pipeline=vkitti2_pipeline),
        ]
    )
)
