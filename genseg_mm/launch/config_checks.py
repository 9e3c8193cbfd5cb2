"""What is wrong with a config, said in one line before anything is built from it."""

import importlib.util
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine import registry as registries
from mmengine.config import Config

from genseg_mm.launch.config_types import find_type, near_types, typed_dicts, wrong_arguments
from genseg_mm.precision import evaluation_dtype, evaluation_settings

_INF = math.inf
_LEVELS = ('CRITICAL', 'FATAL', 'ERROR', 'WARNING', 'WARN', 'INFO', 'DEBUG', 'NOTSET')
_GROUPS = dict(
    train=('train_dataloader', 'train_cfg', 'optim_wrapper'),
    val=('val_dataloader', 'val_cfg', 'val_evaluator'),
    test=('test_dataloader', 'test_cfg', 'test_evaluator'),
)
_NEEDED_BY = dict(train='training', val='validation', test='testing')
# Of what a stage needs no other part is built.
_STAGES = dict(train=('train', 'val'), test=('test',))
_OWN_NAMES = ('model', 'data_preprocessor', 'optim_wrapper', 'model_wrapper_cfg')
_SHARED = (
    'model', 'data_preprocessor', 'default_hooks', 'custom_hooks', 'visualizer', 'log_processor', 'model_wrapper_cfg',
    'strategy',
)  # fmt: skip


def check_config(cfg: Config, path: str, stage: str) -> None:
    """Checks a whole config for a stage.

    Args:
        cfg: The config, with the options of the command line.
        path: Its file, for messages.
        stage: 'train' (which validates, too) or 'test'.

    Raises:
        ImportError: If a type needs a package that is not installed.
        ValueError: For a value of the wrong kind or range, a part that is missing, an empty list, or a type that no
            registry knows; with the file, the key, what was expected and what came.
    """
    try:
        used = _used_keys(cfg, stage)
        check_values(cfg, used)
        check_types(cfg, used)
        if stage == 'train':
            check_save_best(cfg)
            check_global_batch_size(cfg)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def _used_keys(cfg: Config, stage: str) -> list[str]:
    used = [*_SHARED]
    for name in _STAGES.get(stage, (stage,)):
        group = _GROUPS[name]
        there = [key for key in group if cfg.get(key) is not None]
        if there and len(there) < len(group):
            missing = next(key for key in group if key not in there)
            raise ValueError(f'{_NEEDED_BY[name]} needs {", ".join(group)} together, but {missing} is missing (None)')
        used += group
    if stage == 'train':
        used.append('param_scheduler')
    return [key for key in used if cfg.get(key) is not None]


# ---- values


def check_values(cfg: Config, used: list[str]) -> None:
    """Numbers, lists and dicts at the places where MMEngine or torch would stumble over them later.

    Raises:
        ValueError: For the first that is wrong.
    """
    for key in used:
        if key in ('param_scheduler', 'custom_hooks') or key.endswith('_evaluator'):
            _dicts_with_type(key, cfg[key], or_one=key != 'custom_hooks')
        elif not isinstance(cfg[key], Mapping):
            raise ValueError(f'{key}: expected a dict, but got {cfg[key]!r}')
        if key.endswith('_dataloader'):
            _check_loader(cfg[key], key)
    _check_runtime(cfg)
    if 'optim_wrapper' in used:
        _check_optim_wrapper(cfg.optim_wrapper)
    for key in ('train_cfg', 'param_scheduler', 'default_hooks', 'custom_hooks', 'log_processor'):
        if key in used:
            for where, node in _dicts(cfg[key], key):
                _check_numbers(node, where)
    for key in ('model', *(own for own in used if own.endswith('_dataloader'))):
        for where, node in _dicts(cfg[key], key):
            if 'image_size' in node:
                _check_size(node['image_size'], f'{where}.image_size')


def _dicts(node: Any, where: str) -> Iterator[tuple[str, Mapping]]:
    if isinstance(node, Mapping):
        yield where, node
        for key in node:
            yield from _dicts(node[key], f'{where}.{key}')
    elif isinstance(node, (list, tuple)) and any(isinstance(own, (Mapping, list)) for own in node):
        for number, own in enumerate(node):
            yield from _dicts(own, f'{where}.{number}')


def _dicts_with_type(where: str, value: Any, or_one: bool) -> None:
    if or_one and isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise ValueError(f'{where}: expected a list of dicts, but got {value!r}')
    if not value and where.endswith('_evaluator'):
        raise ValueError(f'{where}: expected at least one metric, but got {value!r}')
    for number, own in enumerate(value):
        if not isinstance(own, Mapping) or 'type' not in own:
            raise ValueError(f"{where}.{number}: expected a dict with a 'type', but got {own!r}")


def _integer(least: int, also: tuple = ()) -> Callable[[Any], str | None]:
    others = ''.join(f' or {own}' for own in also)

    def check(value: Any) -> str | None:
        if value in also and not isinstance(value, bool):
            return None
        good = isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= least
        return None if good else f'an integer of at least {least}{others}'

    return check


def _number(least: float, most: float = _INF, above: bool = False, below: bool = False) -> Callable:
    low = f'{"above" if above else "of at least"} {least:g}'
    high = '' if most == _INF else f' and {"below" if below else "at most"} {most:g}'

    def check(value: Any) -> str | None:
        good = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        good = good and (value > least if above else value >= least)
        good = good and (value < most if below else value <= most)
        return None if good else f'a number {low}{high}'

    return check


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else 'True or False'


def _betas(value: Any) -> str | None:
    good = isinstance(value, (list, tuple)) and len(value) in (2, 3)
    good = good and all(_number(0, 1, below=True)(own) is None for own in value)
    return None if good else 'two numbers from 0 up to, without, 1'


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value else 'a text'


def _apply(checks: Mapping[str, Callable], node: Mapping, where: str) -> None:
    for key, check in checks.items():
        if key in node:
            expected = check(node[key])
            if expected:
                raise ValueError(f'{f"{where}.{key}".lstrip(".")}: expected {expected}, but got {node[key]!r}')


def _or_none(check: Callable) -> Callable[[Any], str | None]:
    return lambda value: None if value is None else check(value)


_LOADER = dict(
    batch_size=_integer(1), num_workers=_integer(0), persistent_workers=_boolean, pin_memory=_boolean,
    drop_last=_boolean, prefetch_factor=_or_none(_integer(1)), num_batch_per_epoch=_or_none(_integer(1)),
    timeout=_number(0),
)  # fmt: skip
_OPTIMIZER = dict(
    lr=_number(0), weight_decay=_number(0), momentum=_number(0), eps=_number(0), betas=_betas, amsgrad=_boolean,
    fused=_or_none(_boolean), nesterov=_boolean,
)  # fmt: skip
_INTERVALS = dict(
    max_iters=_integer(1), max_epochs=_integer(1), val_interval=_integer(1), val_begin=_integer(0),
    interval=_integer(1, (-1,)), max_keep_ckpts=_integer(1, (-1,)), by_epoch=_boolean, window_size=_integer(1),
    begin=_integer(0), end=_integer(0), T_max=_or_none(_integer(1)), start_factor=_number(0, 1, above=True),
    end_factor=_number(0, 1), gamma=_number(0, above=True), momentum=_number(0, 1), num_images=_or_none(_integer(1)),
    log_metric_by_epoch=_boolean, save_optimizer=_boolean, save_last=_boolean, draw=_boolean,
)  # fmt: skip


def _check_loader(loader: Mapping, where: str) -> None:
    _apply(_LOADER, loader, where)
    if loader.get('persistent_workers') and not loader.get('num_workers', 0):
        raise ValueError(
            f'{where}.persistent_workers: expected num_workers of at least 1 with it, but got '
            f'num_workers={loader.get("num_workers", 0)}; set {where}.persistent_workers=False'
        )
    if 'batch_size' not in loader and 'batch_sampler' not in loader:
        raise ValueError(f'{where}: expected a batch_size, but got {sorted(loader)}')
    for key in ('dataset', 'sampler'):
        part = loader.get(key)
        if key == 'sampler' and 'batch_sampler' in loader and part is None:
            continue
        if not isinstance(part, Mapping) or 'type' not in part:
            raise ValueError(f"{where}.{key}: expected a dict with a 'type', but got {part!r}")
    for place, node in _dicts(loader['dataset'], f'{where}.dataset'):
        if 'datasets' in node:
            _check_parts(node['datasets'], f'{place}.datasets', 'a list of at least one dataset')
        if 'pipeline' in node:
            _check_parts(node['pipeline'], f'{place}.pipeline', 'a list of at least one transform')


def _check_parts(value: Any, where: str, expected: str) -> None:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f'{where}: expected {expected}, but got {value!r}')
    for number, own in enumerate(value):
        if not callable(own) and not (isinstance(own, Mapping) and 'type' in own):
            raise ValueError(f"{where}.{number}: expected a dict with a 'type', but got {own!r}")


def _check_optim_wrapper(wrapper: Mapping) -> None:
    _apply(dict(accumulative_counts=_integer(1)), wrapper, 'optim_wrapper')
    clip = wrapper.get('clip_grad')
    if clip is not None:
        if not isinstance(clip, Mapping) or not {'max_norm', 'clip_value'} & set(clip):
            raise ValueError(f'optim_wrapper.clip_grad: expected dict(max_norm=1.0), or None, but got {clip!r}')
        sizes = dict(max_norm=_number(0, above=True), clip_value=_number(0, above=True))
        _apply({**sizes, 'norm_type': _number(0, above=True)}, clip, 'optim_wrapper.clip_grad')
    optimizer = wrapper.get('optimizer')
    if 'optimizer' not in wrapper and 'constructor' in wrapper:
        return
    if not isinstance(optimizer, Mapping) or 'type' not in optimizer:
        raise ValueError(f"optim_wrapper.optimizer: expected a dict with a 'type' such as AdamW, but got {optimizer!r}")
    _apply(_OPTIMIZER, optimizer, 'optim_wrapper.optimizer')


def _check_numbers(node: Mapping, where: str) -> None:
    _apply(_INTERVALS, node, where)
    begin, end = node.get('begin'), node.get('end')
    if begin is not None and end is not None and begin >= end:
        raise ValueError(f'{where}: expected begin below end, but got begin={begin}, end={end}')
    best = node.get('save_best')
    names = best if isinstance(best, (list, tuple)) else [best]
    if best is not None and not all(isinstance(name, str) and name for name in names):
        raise ValueError(f'{where}.save_best: expected names of metrics, but got {best!r}')


def _check_size(value: Any, where: str) -> None:
    pair = value if isinstance(value, (list, tuple)) else [value]
    if value is not None and (len(pair) not in (1, 2) or any(_integer(1)(side) is not None for side in pair)):
        raise ValueError(f'{where}: expected (height, width), two integers of at least 1, but got {value!r}')


def _seed(value: Any) -> str | None:
    good = value is None or _integer(0)(value) is None and value < 2**32
    return None if good else 'an integer from 0 to 2**32 - 1, or None'


def _check_runtime(cfg: Config) -> None:
    for key in ('env_cfg', 'randomness', 'auto_scale_lr', 'default_hooks'):
        none = key != 'env_cfg' and cfg.get(key) is None  # MMEngine reads env_cfg wherever there is one
        if key in cfg and not none and not isinstance(cfg[key], Mapping):
            raise ValueError(f'{key}: expected a dict, but got {cfg[key]!r}')
    if not isinstance(cfg.get('compile') or False, (bool, Mapping)):
        raise ValueError(f'compile: expected True, False or a dict for torch.compile, but got {cfg.compile!r}')
    if cfg.get('resume') not in (None, True, False, 'auto'):
        raise ValueError(f"resume: expected True, False or 'auto', but got {cfg.resume!r}")
    _check_scope(cfg.get('default_scope'))
    evaluation_dtype(cfg)
    evaluation_settings(cfg)
    _apply(dict(seed=_seed, deterministic=_boolean, diff_rank_seed=_boolean), cfg.get('randomness') or {}, 'randomness')
    _apply(dict(enable=_boolean, base_batch_size=_integer(1)), cfg.get('auto_scale_lr') or {}, 'auto_scale_lr')
    level = cfg.get('log_level', 'INFO')
    if not (isinstance(level, int) or isinstance(level, str) and level.upper() in _LEVELS):
        raise ValueError(f'log_level: expected one of {", ".join(_LEVELS)}, but got {level!r}')
    _apply(dict(global_batch_size=_or_none(_integer(1))), cfg._cfg_dict, '')
    texts = dict.fromkeys(('load_from', 'experiment_name', 'default_scope'), _or_none(_text))
    _apply(texts, cfg._cfg_dict, '')
    for name, hook in (cfg.get('default_hooks') or {}).items():
        if hook is not None and not isinstance(hook, Mapping):
            raise ValueError(f'default_hooks.{name}: expected a dict or None, but got {hook!r}')


def _check_scope(scope: Any) -> None:
    """MMEngine only warns of a scope that no package has, and looks everything up elsewhere."""
    if not isinstance(scope, str) or not scope or scope == 'mmengine':
        return
    owners = (registries.MODELS, registries.DATASETS, registries.HOOKS, registries.METRICS, registries.TRANSFORMS)
    if any(scope in owner._children for owner in owners):
        return
    if not scope.isidentifier() or importlib.util.find_spec(scope) is None:
        raise ValueError(f'default_scope: expected the name of an installed package, but got {scope!r}')


def check_global_batch_size(cfg: Config) -> None:
    """Has the training loop and the sampler say now whether they can split an update as this run would.

    Raises:
        ValueError: If they cannot, or nothing reads ``global_batch_size``.
    """
    from genseg_mm.datasets.samplers import RatioInfiniteSampler, check_update
    from genseg_mm.launch.processes import world_size_of
    from genseg_mm.launch.update_based_train_loop import UpdateBasedTrainLoop, num_micro_batches

    if cfg.get('train_cfg') is None:
        return
    size, loop, loader = cfg.get('global_batch_size'), cfg.train_cfg, cfg.train_dataloader
    kind = find_type(cfg, ('train_cfg',), loop) if 'type' in loop else None
    counts_updates = isinstance(kind, type) and issubclass(kind, UpdateBasedTrainLoop)
    if counts_updates and cfg.optim_wrapper.get('accumulative_counts', 1) != 1:
        raise ValueError(
            'optim_wrapper.accumulative_counts: expected none, since global_batch_size says how much is accumulated, '
            f'but got {cfg.optim_wrapper.accumulative_counts}; set global_batch_size'
        )
    if size is None:
        return
    if not counts_updates:
        raise ValueError(
            "global_batch_size: expected train_cfg.type='genseg_mm.UpdateBasedTrainLoop', which alone reads it, but "
            f'got {loop.get("type", loop)!r}'
        )
    processes, batch_size = world_size_of(cfg.get('launcher', 'none')), loader.get('batch_size')
    if batch_size is None:
        return  # a batch sampler's: the loop tells
    num_micro_batches(size, batch_size, processes)
    sampler = loader.get('sampler') or {}
    found = find_type(cfg, ('train_dataloader', 'sampler'), sampler) if 'type' in sampler else None
    if isinstance(found, type) and issubclass(found, RatioInfiniteSampler):
        settings = (sampler.get(key) for key in ('ratio', 'exact', 'group'))
        check_update(*settings, size, batch_size, processes)


# ---- types


def check_types(cfg: Config, used: list[str]) -> None:
    """Looks every type of the used parts up, and the kinds of the arguments of ours.

    Raises:
        ImportError: If a package that it needs is not installed.
        ValueError: If no registry knows it, with the nearest names; or an argument is of another kind.
    """
    for key in used:
        for path, node in typed_dicts(cfg[key], (key,)):
            kind = node.get('type')
            if not isinstance(kind, str):
                if kind is not None and not callable(kind):
                    raise ValueError(f'{_dotted(path)}.type: expected a name, but got {kind!r}')
                continue
            # Names in small letters (norm, nms, bilinear) are for their owner, who may not use a registry.
            if key in _OWN_NAMES and not kind.rpartition('.')[2][:1].isupper():
                continue
            found = find_type(cfg, path, node)
            if found is None:
                near = did_you_mean_types(cfg, path, kind)
                raise ValueError(f'{_dotted(path)}.type: there is no {kind!r} in any registry{near}')
            for name, expected in wrong_arguments(found, node):
                raise ValueError(f'{_dotted(path)}.{name}: expected {expected}, but got {node[name]!r}')


def check_save_best(cfg: Config) -> None:
    """Has the checkpoint hook of the config say now whether it knows if more of a metric is better.

    Raises:
        ValueError: If it cannot tell, as for most misspelt names, or refuses another of its arguments; a name that the
            evaluation then does not give is an error of the first validation, which lists those it gives.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if not hook.get('save_best'):
        return
    owner = find_type(cfg, ('default_hooks', 'checkpoint'), hook)
    settings = {key: value for key, value in hook.items() if key not in ('type', '_scope_', 'priority')}
    try:
        owner(**settings)
    except (ValueError, KeyError, TypeError, AssertionError) as error:  # MMEngine's ways to refuse an argument
        reason = ' '.join(str(error.args[0] if error.args else error).split())
        if 'Cannot infer the rule' not in reason:
            raise ValueError(f'default_hooks.checkpoint: {reason}') from error
        greater = ', '.join(getattr(owner, '_default_greater_keys', ()))
        raise ValueError(
            f'default_hooks.checkpoint.save_best: expected metrics of the evaluation, whose names hold one of '
            f"{greater} (else rule='greater' or 'less'), but got {hook['save_best']!r} ({reason})"
        ) from error


def did_you_mean_types(cfg: Config, path: tuple, kind: str) -> str:
    """``; did you mean ...?`` with names of the registry of the place."""
    near = near_types(cfg, path, kind)
    return f'; did you mean {" or ".join(map(repr, near))}?' if near else ''


def _dotted(path: tuple) -> str:
    return '.'.join(map(str, path))
