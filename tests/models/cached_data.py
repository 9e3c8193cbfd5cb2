"""A cache of encodings of tiny data: configs with and without it, the tool that writes it, losses with either."""

import argparse
import runpy
from pathlib import Path

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from tiny_models import genmask_config

from genseg_mm.datasets import Visit
from genseg_mm.registry import DATASETS

TOOLS = Path(__file__).parents[2] / 'tools' / 'dataset_tools'
make_tiny_refcoco = runpy.run_path(str(TOOLS / 'make_tiny_refcoco.py'))['make_tiny_refcoco']
TOOL = runpy.run_path(str(TOOLS / 'cache_encodings.py'))
ORDER = (0, 7, 2, 8)  # 7 referring items, then captions


def set_hub():
    """What a training says of itself."""
    hub = MessageHub.get_current_instance()
    hub.update_info('iter', 3)
    hub.update_info('seed', 5)


def encoder(family, **changes):
    config = genmask_config(family)['prompt_encoder']
    return {**config, 'trainable': False, **changes}


def data_config(coco, folder=None, what=('image', 'mask', 'prompt'), size=32):
    """Referring expressions on files and captions of scenes in memory, without or with a cache."""
    load = [dict(type='genseg_mm.LoadImage'), dict(type='genseg_mm.LoadReferringMask')]
    resize = [dict(type='mmcv.Resize', scale=(size, size), keep_ratio=False)]

    def pipeline(transforms):
        if folder is not None:
            cached = dict(type='genseg_mm.CachedEncodings', folder=str(folder), what=what)
            transforms = [dict(cached, transforms=transforms)]
        text, pack = dict(type='genseg_mm.TextPrompt'), dict(type='genseg_mm.PackGenSegInputs')
        return [text, *transforms, pack]

    referring = dict(
        type='genseg_mm.RefCOCODataset',
        data_root=str(coco),
        data_prefix=dict(img_path='train2014'),
        pipeline=pipeline(load + resize),
        serialize_data=False,  # it takes longer than all else
    )
    captions = dict(
        type='genseg_mm.ShapesDataset',
        num_scenes=3,
        image_size=32,
        task='text_to_image',
        pipeline=pipeline(resize),
        serialize_data=False,
    )
    ignore = ['classes', 'palette']
    return dict(type='genseg_mm.MixedDataset', datasets=[referring, captions], ignore_keys=ignore)


def write_config(path, coco, family, model=None, **data):
    model = model or genmask_config(family, prompt_encoder=encoder(family))
    loader = dict(batch_size=4, dataset=data_config(coco, **data))
    Config(dict(model=model, train_dataloader=loader)).dump(path)
    return path


def make_cache(config, out, **changes):
    """Runs the tool in this process."""
    args = dict(
        config=str(config), out=str(out), what=['image', 'mask', 'prompt'], split=['train'],
        dtype='float32', batch_size=4, device='cpu', workers=0, shard_size=1, checkpoint=None,
        cfg_options=None,
    )  # fmt: skip
    TOOL['run'](argparse.Namespace(**{**args, **changes}))


def batch(dataset, order=ORDER, visit=1):
    dataset = DATASETS.build(dataset)
    return pseudo_collate([dataset[Visit(index, visit)] for index in order])


def losses(model, data):
    result = model(**model.data_preprocessor(data, True), mode='loss')
    return {name: value.item() for name, value in result.items()}
