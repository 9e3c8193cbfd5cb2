# RefCOCO+ (UNC split) jointly with text-to-image generation; layout as refcoco.py, with <root>/coco/refcoco+/.
_base_ = ['./refcoco.py']

files = dict(ann_file='refcoco+/instances.json', split_file='refcoco+/refs(unc).p')
train_dataloader = dict(
    dataset=dict(
        datasets=[
            {**_base_.refcoco, 'split': 'train', 'pipeline': _base_.train_pipeline, **files},
            dict(_base_.captions, exclude_images=[files['split_file']]),
        ]
    )
)
val_dataloader = dict(dataset=files)
test_dataloader = dict(dataset=files)
