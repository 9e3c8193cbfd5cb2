"""Which configs are rehearsed, and what has to be changed in them: a file that inherits from the config."""

import copy
from pathlib import Path
from pprint import pformat
from typing import Any

from mmengine.config import Config, ConfigDict

from genseg_mm.config_file import read_config_file
from genseg_mm.dataset_configs import walk
from genseg_mm.hub_layouts import layout, sources_of
from genseg_mm.hub_layouts.sizes import TEXT_DIVISOR

ROOT = Path(__file__).resolve().parents[2]
# Top-level keys of a config that build models; others name sources only to write these, or none.
MODEL_KEYS = ('model', 'description_writer', 'models')
_NO_LIMIT = 10**5  # sides above it only leave the other one to decide
SMALL_PICTURE = 192


def full_size_configs() -> list[Path]:
    """Every public config that is no tiny one: those of the methods, then the suites, which need trained models."""
    folders = [path for path in (ROOT / 'configs').iterdir() if path.name != '_base_' and path.is_dir()]
    folders.sort(key=lambda path: (path.name == 'benchmarks', path.name))
    return [path for folder in folders for path in sorted(folder.glob('*.py')) if 'tiny' not in path.stem]


def repositories(cfg: Config) -> dict[str, set[str]]:
    """Hub ids that a config's models are built from, and the subfolders that it names of each.

    Raises:
        ValueError: If one has no known layout, or no such subfolder.
    """
    found: dict[str, set[str]] = {}
    for key in MODEL_KEYS:
        for source in sources_of(cfg.get(key), key):
            parts = layout(source.repository)
            if source.subfolder and source.subfolder not in parts:
                raise ValueError(
                    f'{source.path}: {source.repository} has the subfolders {sorted(filter(None, parts))}, but got '
                    f'{source.subfolder!r}'
                )
            found.setdefault(source.repository, set()).add(source.subfolder)
    return found


def changes_of(
    cfg: Config, width: str, batch_size: int, processes: int, layers: int = 2, pictures: str = 'full'
) -> dict[str, Any]:
    """What a rehearsal changes in a training config, by dotted key.

    Lengths, batches and workers, and hidden layers that are not there; with tiny widths also those that the config
    states itself, and with small pictures the sizes of these.
    """
    changes: dict[str, Any] = {}
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if not loader:
            continue
        key = f'{split}_dataloader'
        changes.update({f'{key}.num_workers': 0, f'{key}.persistent_workers': False})
        size = batch_size if split == 'train' else 1
        changes[f'{key}.batch_size'] = size
        sampler = loader.get('sampler') or {}
        if split == 'train' and sampler.get('group', 0) > 1:
            changes[f'{key}.sampler.group'] = size
    if cfg.get('global_batch_size'):
        changes['global_batch_size'] = 2 * batch_size * processes  # two micro-batches
    elif (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1) > 1:
        changes['optim_wrapper.accumulative_counts'] = 1
    if cfg.get('train_cfg'):
        changes.update({'train_cfg.max_iters': 1, 'train_cfg.val_interval': 2})
        changes.update({'default_hooks.checkpoint.interval': 1, 'default_hooks.logger.interval': 1})
    for place, value in _named(cfg.get('model'), 'hidden_layer', 'model'):
        several = isinstance(value, (list, tuple))
        there = [max(own, -layers) if own < 0 else min(own, layers) for own in (value if several else [value])]
        if several:
            there = [min(number, layers) for number in range(1, len(there) + 1)]
        if there != list(value if several else [value]):
            changes[place] = tuple(there) if several else there[0]
    if width == 'tiny':
        for place, value in _named(cfg.get('model'), 'prompt_dims', 'model'):
            changes[place] = value // TEXT_DIVISOR
    if pictures == 'small':
        if 'pretrained' in cfg.model.get('colorer', {}) and 'processing_size' not in cfg.model:
            changes['model.processing_size'] = SMALL_PICTURE
        changes.update(_smaller_pictures(cfg))
    return changes


def _smaller_pictures(cfg: Config) -> dict[str, Any]:
    """The pipelines of all datasets with pictures of a quarter or half of the size; small ones stay."""
    changes = {}
    for split in ('train', 'val', 'test'):
        loader = copy.deepcopy(cfg.get(f'{split}_dataloader'))
        if not loader:
            continue
        before = str(loader.dataset)
        for dataset in walk(loader.dataset):
            for transform in dataset.get('pipeline') or []:
                for key in ('scale', 'crop_size'):
                    if key in transform:
                        transform[key] = _smaller(transform[key])
        if str(loader.dataset) != before:
            changes[f'{split}_dataloader.dataset'] = dict(ConfigDict(loader.dataset).to_dict(), _delete_=True)
    return changes


def _smaller(size: Any) -> Any:
    sides = [size] if isinstance(size, int) else list(size)
    real = [side for side in sides if side < _NO_LIMIT]
    if not real or max(real) < 320:
        return size
    divisor = 4 if all(side % 64 == 0 for side in real) else 2
    sides = [side // divisor if side < _NO_LIMIT else side for side in sides]
    return sides[0] if isinstance(size, int) else tuple(sides)


def _named(node: Any, name: str, place: str) -> list[tuple[str, Any]]:
    """Places of a key that has a value below a part of a config."""
    if not isinstance(node, dict):
        return []
    found = [(f'{place}.{name}', node[name])] if node.get(name) is not None else []
    return found + [own for key, value in node.items() for own in _named(value, name, f'{place}.{key}')]


def write_config(config: Path, changes: dict[str, Any], out: Path) -> Path:
    """A config of the same name that inherits from another and changes some of its keys."""
    nested: dict[str, Any] = {}
    for place, value in changes.items():
        *outer, last = place.split('.')
        node = nested
        for key in outer:
            node = node.setdefault(key, {})
        node[last] = copy.deepcopy(value)
    lines = [f'_base_ = [{str(config.resolve())!r}]', *(f'{key} = {pformat(own)}' for key, own in nested.items())]
    path = out / config.name
    path.write_text('\n'.join(lines) + '\n')
    read_config_file(path)
    return path


def weight_files(cfg: Config, out: Path) -> dict[str, str]:
    """Weights that ``init_cfg`` reads from a file, written anew at random by building the part that reads them.

    Returns:
        What the config has to say instead.
    """
    from genseg_mm.hub_layouts.folders import random_weights_like

    changes = {}
    for place, node in _initialised(cfg.get('model'), 'model'):
        if Path(node['init_cfg']['checkpoint']).exists():
            continue
        file = out / Path(node['init_cfg']['checkpoint']).name
        own = {key: value for key, value in node.items() if key != 'init_cfg'}
        random_weights_like(own, cfg.get('default_scope'), file)
        changes[f'{place}.init_cfg.checkpoint'] = str(file)
    return changes


def _initialised(node: Any, place: str) -> list[tuple[str, dict]]:
    if not isinstance(node, dict):
        return []
    own = node.get('init_cfg')
    found = [(place, node)] if isinstance(own, dict) and own.get('type') == 'Pretrained' else []
    return found + [one for key, value in node.items() for one in _initialised(value, f'{place}.{key}')]
