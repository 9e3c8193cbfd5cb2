"""``a='auto'`` of the long-tail law: its number from the codec and the masks of a training, before that starts."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from genseg_mm.dataset_configs import single_datasets
from genseg_mm.datasets import SeededDataset
from genseg_mm.datasets.seeded_access import Visit
from genseg_mm.files import read_json_dict, whole_file
from genseg_mm.functional.mask_leak import TOLERANCE, MaskLeak, encode_masks, linear_leak, long_tail_width
from genseg_mm.launch.config_types import typed_dicts
from genseg_mm.launch.processes import on_main_process
from genseg_mm.registry import class_name

RESULT = 'mask_leak.json'
NUM_MASKS = 900
LEAKED_SHARE = 0.01  # of LongTailTimesteps, where the config does not say it
CODEC_BATCH_SIZE = 16


def resolve_auto_timesteps(cfg: Config) -> str | None:
    """Puts a number in the place of each ``a='auto'`` of a config, so that what is dumped and saved has it.

    It is measured by the main process and written to ``mask_leak.json`` of the work dir, from which a training of the
    same codec, masks and share that starts there again takes it.

    Args:
        cfg: Config of a training; changed in place. The processes are joined, and the work dir is locked.

    Returns:
        What was found, for the log; None where nothing was asked for.

    Raises:
        ValueError: If it cannot be told from this config's codec and masks.
    """
    laws = auto_laws(cfg)
    if not laws:
        return None
    lines = []
    for law in laws:
        share = law.get('leaked_share', LEAKED_SHARE)
        found = on_main_process(lambda share=share: _width(cfg, share))
        law['a'] = found['a']
        lines.append(
            f"a='auto' of LongTailTimesteps: a = {found['a']:g}, so that at most {share:.2g} of the masks are trained "
            f'where they leak: further than {found["distance"]:.3g} from pure noise a linear reader without text '
            f'recovers {TOLERANCE:.2g} of what it does not guess ({found["source"]})'
        )
    return '; '.join(lines)


def auto_laws(cfg: Config) -> list[dict]:
    """The configs of long-tail laws with ``a='auto'`` in the model of a config."""
    nodes = [node for _, node in typed_dicts(cfg.get('model') or {}, ('model',))]
    return [own for own in nodes if class_name(own.get('type')) == 'LongTailTimesteps' and own.get('a') == 'auto']


def _width(cfg: Config, share: float) -> dict[str, Any]:
    for name in ('codec', 'train_dataloader'):
        if not isinstance(cfg.model.get(name) if name == 'codec' else cfg.get(name), Mapping):
            where = 'model.codec' if name == 'codec' else name
            raise ValueError(
                f"{cfg.filename}: a='auto' of LongTailTimesteps needs {where}, but got none; give a number for a"
            )
    if cfg.model.get('start', 'noise') != 'noise':
        raise ValueError(
            f"{cfg.filename}: a='auto' of LongTailTimesteps measures how masks show through noise, but "
            f'model.start={cfg.model.start!r}: give a number for a'
        )
    settings = dict(model=cfg.model.codec, data=cfg.train_dataloader.dataset, share=share, num=NUM_MASKS)
    key = hashlib.sha256(Config(dict(settings)).pretty_text.encode()).hexdigest()
    path = Path(cfg.work_dir, RESULT)
    known = read_json_dict(path) if path.is_file() else {}
    if known.get('key') == key:
        return dict(known, source=f'read from {path}')
    leak, source = training_leak(cfg, until=TOLERANCE)
    try:
        distance = leak.first_distance()
    except ValueError as error:
        raise ValueError(f"{cfg.filename}: a='auto' of LongTailTimesteps: {error}; give a number for a") from error
    found = dict(a=long_tail_width(distance, share), distance=distance, source=source)
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(dict(found, key=key, **leak._asdict()), indent=1) + '\n')
    return found


def training_leak(cfg: Config, until: float | None = None, num: int = NUM_MASKS) -> tuple[MaskLeak, str]:
    """The leak of a config's codec and training masks to the best linear reader, and what was measured, in words."""
    masks = training_masks(cfg, num)
    latents = encoded(read_model_codec(cfg), masks)
    source = f'{len(masks)} training masks, {masks.shape[1]}x{masks.shape[2]}, latents {tuple(latents.shape[1:])}'
    return linear_leak(latents, masks, until), source


def read_model_codec(cfg: Config) -> nn.Module:
    """The codec of a config's model, on the device of its training."""
    init_default_scope(cfg.get('default_scope', 'genseg_mm'))
    codec = MODELS.build(cfg.model.codec)
    codec.max_batch = codec.max_batch or CODEC_BATCH_SIZE
    return codec.eval().to(get_device())


@torch.no_grad()
def encoded(codec: nn.Module, masks: Tensor) -> Tensor:
    """Latents of masks (N, H, W) bool, (N, C, h, w) on the CPU, a few at a time."""
    device = codec.latents_mean.device
    parts = masks.split(CODEC_BATCH_SIZE)
    return torch.cat([encode_masks(codec.encode, part.to(device)).cpu() for part in parts])


def training_masks(cfg: Config, num: int = NUM_MASKS, seed: int = 0) -> Tensor:
    """Masks as a training sees them: of the datasets that have some, as many of each, through their pipelines.

    Args:
        cfg: Config with a ``train_dataloader``.
        num: So many at most.
        seed: Of the choice of items and of what their pipelines draw.

    Returns:
        (N, H, W) bool.

    Raises:
        ValueError: If there are none, or they have different sizes.
    """
    init_default_scope(cfg.get('default_scope', 'genseg_mm'))
    datasets = [SeededDataset(own) for own in single_datasets(cfg.train_dataloader.dataset)]
    datasets = [own for own in datasets if len(own) and _mask(own[Visit(0, 0, seed)]) is not None]
    if not datasets:
        raise ValueError(
            f"{cfg.filename}: expected training masks (samples of task 'mask' with gt_sem_seg) to measure the leak on, "
            'but got none: where they come from a cache, measure with a config that loads them'
        )
    masks: list[Tensor] = []
    for number, dataset in enumerate(datasets):
        wanted = (num - len(masks)) // (len(datasets) - number)
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:wanted].tolist()
        found = (_mask(dataset[Visit(index, 0, seed)]) for index in order)
        masks += [own for own in found if own is not None]
    if len(sizes := {tuple(own.shape) for own in masks}) > 1:
        raise ValueError(
            f'{cfg.filename}: expected training masks of one size to measure the leak on, but got '
            f'{", ".join(map(str, sorted(sizes)[:3]))}'
        )
    return torch.stack(masks)


def _mask(item: dict | None) -> Tensor | None:
    sample = (item or {}).get('data_samples')
    if sample is None or sample.get('task', 'mask') != 'mask' or 'gt_sem_seg' not in sample:
        return None
    return sample.gt_sem_seg.data[0] == 1
