"""Writes a config that trains a model of ours on data of one's own: it inherits the model and its settings."""

import pprint
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

import genseg_mm
from genseg_mm.config_file import find_config, shipped_configs
from genseg_mm.dataset_configs import walk
from genseg_mm.datasets.own_folders import OwnData
from genseg_mm.inference.build_model import read_config
from genseg_mm.launch.command_line import did_you_mean
from genseg_mm.registry import class_name

# Names that are easier to remember -> config. The first of a task is the default.
MODELS = {
    'instance': {
        'gen2seg-tiny': 'gen2seg_unet_objects_long_tiny',
        'gen2seg-mae-tiny': 'gen2seg_mae_shapes_long_tiny',
        'gen2seg-sd2': 'gen2seg_sd2_coco',
        'gen2seg-mae-h': 'gen2seg_mae-h_coco',
    },
    'referring': {
        'genmask-tiny': 'genmask_sana_shapes_long_tiny',
        'genmask-wan2.1-1.3b': 'refcoco',
        'genmask-sana-1.6b': 'refcoco_sana-1.6b',
    },
}
KINDS_OF_MODELS = dict(instance='Gen2Seg', referring='GenMask')
TINY_PIXELS = 128  # sides up to this are those of models that train on a CPU
EPOCHS, TINY_ITERS, LARGE_ITERS = 30, (200, 4000), (500, 10000)
# What the model has to be told beside its own config.
_MODEL_OF_TASK = {
    'instance': (),
    'referring': ('model = dict(generation=dict(image_size=size[::-1]))  # of pictures that it makes of texts',),
}
FINE_TUNED = 0.5  # of the learning rate, for weights that are already trained
LINE = 100


@dataclass(frozen=True)
class ChosenModel:
    """A model to train.

    Attributes:
        name: As it was asked for.
        config: Name of the config within ``configs/``, without ``.py``.
        cfg: The config.
        weights: File of weights to begin with, or None.
        task: 'instance' or 'referring'.
    """

    name: str
    config: str
    cfg: Config
    weights: str | None
    task: str


def choose_model(name: str | None, task: str) -> ChosenModel:
    """The model of a name, of the task's kind.

    Args:
        name: A name of ``MODELS`` or of a config; None takes the tiny one that comes with the package.
        task: 'instance' or 'referring'.

    Raises:
        FileNotFoundError: If there is no such name.
        ValueError: If the model is of the other task.
    """
    names = MODELS[task]
    name = name or next(iter(names))
    known = {key: value for one in MODELS.values() for key, value in one.items()}
    config = known.get(name, name)
    try:
        path = Path(find_config(config))
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{error}; short names are {", ".join(known)}{did_you_mean(name, known)}') from None
    found = [own for own, file in shipped_configs().items() if file == path and '/' in own]
    if not found:
        raise FileNotFoundError(f'--model takes a config of the package, but got {name}')
    try:
        cfg, weights = read_config(path.stem)
    except FileNotFoundError:  # a base, which no metafile lists
        cfg, weights = read_config(path)
    kind = class_name(cfg.model['type'])
    if kind != KINDS_OF_MODELS[task]:
        raise ValueError(
            f'--model {name}: expected a {KINDS_OF_MODELS[task]}, as the data is '
            f'{"sentences with masks" if task == "referring" else "instances"}, but it is a {kind}; there are '
            f'{", ".join(names)}'
        )
    return ChosenModel(name, found[0], cfg, weights, task)


def training_size(cfg: Config) -> tuple[int, int]:
    """(width, height) that a model is trained at.

    Raises:
        ValueError: If the config does not say.
    """
    for dataset in walk(cfg.train_dataloader.dataset):
        for transform in dataset.get('pipeline') or ():
            if class_name(transform['type']) == 'AntialiasedResize' and not transform.get('keep_ratio'):
                return tuple(transform['scale'])
            if class_name(transform['type']) == 'RandomInstanceCrop':
                return tuple(transform['crop_size'])[::-1]
        size = dataset.get('image_size')
        if size is not None:
            return (size, size) if isinstance(size, int) else tuple(size)[::-1]
    side = cfg.model.get('processing_size')
    if isinstance(side, int) and side:
        return side, side
    return 64, 64  # what ShapesDataset draws


def own_config(data: OwnData, model: ChosenModel, num_train: int, title: str, weights: str | None) -> str:
    """The text of the config.

    Args:
        data: What the folder holds.
        model: What is trained.
        num_train: Pictures or masks of training.
        title: First line of its docstring.
        weights: File of weights to begin with; None for none.
    """
    size = training_size(model.cfg)
    is_tiny = max(size) <= TINY_PIXELS
    batch_size = model.cfg.train_dataloader.batch_size
    update = batch_size
    if model.cfg.get('global_batch_size'):
        update = 32 if model.task == 'referring' else 8
    few, many = TINY_ITERS if is_tiny else LARGE_ITERS
    max_iters = _round(min(max(EPOCHS * num_train // update, few), many))
    rate = model.cfg.optim_wrapper.optimizer.lr * (FINE_TUNED if weights else 1)
    workers = 0 if is_tiny else 4
    loader = dict(num_workers=workers, persistent_workers=bool(workers))
    lines = [
        f'"""{title}',
        '',
        'Written by prepare_own.py from what it found; change what you like. All other keys are those of _base_.',
        '"""',
        '',
        f'_base_ = {_base(model)!r}',
        '',
        f'load_from = {weights!r}  # weights to begin with; None: from the start',
        '',
        *_datasets(data),
        f'size = {size!r}  # (width, height) at which the model is trained',
        *_MODEL_OF_TASK[model.task],
        *(_referring_pipelines() if model.task == 'referring' else _instance_pipelines()),
        '',
        'train_dataloader = dict(',
        f'    batch_size={batch_size},',
        *(f'    {key}={value!r},' for key, value in loader.items()),
        "    sampler=dict(_delete_=True, type='genseg_mm.RatioInfiniteSampler'),",
        '    dataset=dict(_delete_=True, pipeline=train_pipeline, **train),',
        ')',
        'val_dataloader = dict(',
        '    batch_size=1,  # pictures may have any size',
        *(f'    {key}={value!r},' for key, value in loader.items()),
        "    sampler=dict(_delete_=True, type='mmengine.DefaultSampler', shuffle=False),",
        '    dataset=dict(_delete_=True, test_mode=True, pipeline=test_pipeline, **val),',
        ')',
        'test_dataloader = val_dataloader',
        f'val_evaluator = {_evaluator(data, model)}',
        'test_evaluator = val_evaluator',
        '',
        *([f'global_batch_size = {update}'] if model.cfg.get('global_batch_size') else []),
        f'max_iters = {max_iters}  # about {max(max_iters * update // max(num_train, 1), 1)} passes over {num_train}',
        f'train_cfg = dict(max_iters=max_iters, val_interval={max(max_iters // 4, 1)})',
        f'optim_wrapper = dict(optimizer=dict(lr={rate:g}))',
        'param_scheduler = [',
        f"    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end={max(max_iters // 20, 1)}),",
        f"    dict(type='CosineAnnealingLR', by_epoch=False, begin={max(max_iters // 20, 1)}, end=max_iters),",
        ']',
        f"default_hooks = dict(checkpoint=dict(interval={max(max_iters // 4, 1)}, save_best='{_metric(model)}', "
        "rule='greater'))",
        f'auto_scale_lr = dict(enable=False, base_batch_size={update})',
    ]
    return '\n'.join(lines) + '\n'


def _base(model: ChosenModel) -> str:
    """What the config inherits: by the name of the package where it is installed, so that the file may travel."""
    package = Path(genseg_mm.__file__).resolve().parent
    if (package / '.mim' / 'model-index.yml').exists():
        return f'genseg_mm::{model.config}.py'
    return str(shipped_configs()[model.config])


def _round(number: int) -> int:
    """A number of iterations with two digits."""
    step = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // step) * step


def _metric(model: ChosenModel) -> str:
    return 'oIoU' if model.task == 'referring' else 'mIoU'


def _datasets(data: OwnData) -> list[str]:
    shared = {key: value for key, value in data.train.items() if data.val.get(key) == value}
    own = [{key: value for key, value in side.items() if key not in shared} for side in (data.train, data.val)]
    return [
        f'data = {_dict(shared)}',
        *(f'{name} = dict({_arguments(side)}**data)' for name, side in zip(('train', 'val'), own, strict=True)),
        '',
    ]


def _arguments(values: Mapping) -> str:
    return ''.join(f'{key}={value!r}, ' for key, value in values.items())


def _dict(values: Mapping[str, Any]) -> str:
    whole = f'dict({_arguments(values).removesuffix(", ")})'
    if len(whole) <= LINE:
        return whole
    return 'dict(\n' + ''.join(f'    {key}={pprint.pformat(value)},\n' for key, value in values.items()) + ')'


def _instance_pipelines() -> list[str]:
    return [
        'train_pipeline = [',
        "    dict(type='genseg_mm.LoadImage'),",
        "    dict(type='genseg_mm.LoadInstanceMap', invalid='skip'),",
        "    dict(type='genseg_mm.AntialiasedResize', scale=size),",
        "    dict(type='genseg_mm.RandomInstanceFlip', prob=0.5, direction='horizontal'),",
        "    dict(type='genseg_mm.PackGenSegInputs'),",
        ']',
        'test_pipeline = [',
        "    dict(type='genseg_mm.LoadImage'),",
        "    dict(type='genseg_mm.NetworkResize'),  # the size that the model asks for",
        "    dict(type='genseg_mm.LoadInstanceMap', invalid='skip'),  # after it: ground truth at its own size",
        "    dict(type='genseg_mm.PointPrompt', seed=0),  # one random pixel of each instance",
        "    dict(type='genseg_mm.PackGenSegInputs'),",
        ']',
    ]


def _referring_pipelines() -> list[str]:
    return [
        'train_pipeline = [',
        "    dict(type='genseg_mm.LoadImage'),",
        "    dict(type='genseg_mm.LoadReferringMask'),",
        "    dict(type='genseg_mm.AntialiasedResize', scale=size),",
        "    dict(type='genseg_mm.TextPrompt'),",
        "    dict(type='genseg_mm.PackGenSegInputs'),",
        ']',
        'test_pipeline = [',
        "    dict(type='genseg_mm.LoadImage'),",
        "    dict(type='genseg_mm.AntialiasedResize', scale=size),",
        "    dict(type='genseg_mm.LoadReferringMask'),  # after it: ground truth at its own size",
        "    dict(type='genseg_mm.TextPrompt'),",
        "    dict(type='genseg_mm.PackGenSegInputs'),",
        ']',
    ]


def _evaluator(data: OwnData, model: ChosenModel) -> str:
    if model.task == 'referring':
        protocol = 'grefcoco' if data.val.get('allow_no_target') else 'lavt'
        return f"dict(_delete_=True, type='genseg_mm.ReferringMetric', protocol={protocol!r})"
    prompting = model.cfg.model.get('prompting') or {}
    threshold = prompting.get('radius', prompting.get('rule', 'reference'))
    sigma = f', sigma={prompting["sigma"]}' if 'sigma' in prompting else ''
    return f"dict(_delete_=True, type='genseg_mm.PointPromptMetric', threshold={threshold!r}{sigma})"
