"""What the types of a config mean: from the place of a dict to the class, what the class takes, which options fit."""

import copy
import difflib
import inspect
import numbers
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry
from mmengine.utils import get_object_from_string

from genseg_mm.launch.command_line import did_you_mean

# Last keys of a path -> registry. The longest that fits counts; what fits none belongs to the top-level key.
_PLACES = dict(
    optimizer='OPTIMIZERS', sampler='DATA_SAMPLERS', batch_sampler='DATA_SAMPLERS', pipeline='TRANSFORMS',
    transforms='TRANSFORMS', vis_backends='VISBACKENDS', collate_fn='FUNCTIONS', worker_init_fn='FUNCTIONS',
    init_cfg='WEIGHT_INITIALIZERS',
)  # fmt: skip
_TOP = dict(
    model='MODELS', data_preprocessor='MODELS', tta_model='MODELS', description_writer='MODELS', codec='MODELS',
    model_wrapper_cfg='MODEL_WRAPPERS', train_dataloader='DATASETS', val_dataloader='DATASETS',
    test_dataloader='DATASETS', optim_wrapper='OPTIM_WRAPPERS', param_scheduler='PARAM_SCHEDULERS',
    val_evaluator='METRICS', test_evaluator='METRICS', default_hooks='HOOKS', custom_hooks='HOOKS',
    visualizer='VISUALIZERS', log_processor='LOG_PROCESSORS', train_cfg='LOOPS', val_cfg='LOOPS', test_cfg='LOOPS',
    tta_pipeline='TRANSFORMS', strategy='STRATEGIES',
)  # fmt: skip
# What stands for a missing type, as MMEngine's runner fills it in.
_DEFAULT_TYPES = {
    'optim_wrapper': 'OptimWrapper', 'train_cfg': 'EpochBasedTrainLoop', 'val_cfg': 'ValLoop', 'test_cfg': 'TestLoop',
    'log_processor': 'LogProcessor', 'visualizer': 'Visualizer', 'default_hooks.timer': 'IterTimerHook',
    'default_hooks.runtime_info': 'RuntimeInfoHook', 'default_hooks.sampler_seed': 'DistSamplerSeedHook',
    'default_hooks.logger': 'LoggerHook', 'default_hooks.param_scheduler': 'ParamSchedulerHook',
    'default_hooks.checkpoint': 'CheckpointHook', 'model_wrapper_cfg': 'MMDistributedDataParallel',
}  # fmt: skip
# Dicts without a type -> whose arguments they are, and how many of them are not settings.
_UNTYPED = dict(
    prompting=('genseg_mm.functional.point_prompting.masks_from_points', 4),
    automatic=('genseg_mm.models.map_prompting.automatic_instances', 1),
    generation=('genseg_mm.models.genmask.GenMask.generate', 2),
    lora=('peft.LoraConfig', 0),
    compile=('torch.compile', 1),
    evaluation_compile=('torch.compile', 1),
)
_PLAIN_KEYS = dict(
    auto_scale_lr={'enable', 'base_batch_size'},
    randomness={'seed', 'diff_rank_seed', 'deterministic'},
    env_cfg={'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    mp_cfg={'mp_start_method', 'opencv_num_threads'},
    # Of MMEngine's own constructor.
    paramwise_cfg={
        'custom_keys',
        'bias_lr_mult',
        'bias_decay_mult',
        'norm_decay_mult',
        'dwconv_decay_mult',
        'flat_decay_mult',
        'bypass_duplicate',
        'dcn_offset_lr_mult',
    },
    clip_grad={'type', 'max_norm', 'norm_type', 'error_if_nonfinite', 'clip_value', 'foreach'},
)
# Arguments that the runner hands over beside those of the config.
_LOADER_KEYS = {'dataset', 'sampler', 'batch_sampler', 'num_batch_per_epoch', 'worker_init_fn', 'collate_fn'}


def typed_dicts(node: Any, path: tuple = ()) -> Iterator[tuple[tuple, Mapping]]:
    """All dicts of a config that have a type, given or default: (path, dict)."""
    if isinstance(node, Mapping):
        if 'type' in node or '.'.join(map(str, path)) in _DEFAULT_TYPES:
            yield path, node
        for key in node:
            yield from typed_dicts(node[key], (*path, key))
    elif isinstance(node, (list, tuple)):
        for number, own in enumerate(node):
            if isinstance(own, (Mapping, list, tuple)):
                yield from typed_dicts(own, (*path, number))


def registry_of(path: tuple) -> Registry | None:
    """The registry that the type of a dict at this place is looked up in; None where nothing says so."""
    for key in reversed(path):
        if key in _PLACES:
            return getattr(registries, _PLACES[key])
    name = _TOP.get(path[0] if path else None)
    return None if name is None else getattr(registries, name)


def find_type(cfg: Config, path: tuple, node: Mapping) -> Any:
    """The class or function that a dict's type means, None if there is none of this name.

    Raises:
        ImportError: If a package that it needs is not installed.
    """
    kind = node.get('type', _DEFAULT_TYPES.get('.'.join(map(str, path))))
    if not isinstance(kind, str):
        return kind
    own = registry_of(path)
    with DefaultScope.overwrite_default_scope(scope_of(cfg)):
        for registry in [*([] if own is None else [own]), *_others(own)]:
            found = _in_scope(registry, kind, node.get('_scope_'), scope_of(cfg))
            if found is not None:
                return found
    return None


def scope_of(cfg: Config) -> str:
    """Where the types of a config are looked up first."""
    return cfg.get('default_scope') or 'mmengine'


def _others(own: Registry | None) -> list[Registry]:
    """Parts of models are spread over several registries."""
    if own is registries.MODELS or own is None:
        return [registries.MODELS, registries.TASK_UTILS, registries.WEIGHT_INITIALIZERS, registries.FUNCTIONS]
    return [registries.EVALUATOR] if own is registries.METRICS else []


def _in_scope(registry: Registry, kind: str, scope: str | None, default: str) -> Any:
    if scope is None and registry is registries.FUNCTIONS and default not in registry._children:
        return _get(registry, kind)  # few packages have functions; MMEngine would warn of that
    with registry.switch_scope_and_registry(scope) as within:
        return _get(within, kind)


def _get(registry: Registry, kind: str) -> Any:
    try:
        return registry.get(kind)
    except RuntimeError as error:  # MMEngine's, for a dotted name that cannot be imported
        if 'Failed to get' not in str(error):
            raise
        return None


def near_types(cfg: Config, path: tuple, kind: str) -> list[str]:
    """Names like this one in the registry of the place, our own with their scope."""
    root = registry_of(path)
    if root is None:
        return []
    scope, _, name = kind.rpartition('.')
    names: dict[str, str] = {}
    for registry in (root, *root._children.values()):
        if registry.scope in ('mmengine', 'genseg_mm', scope, scope_of(cfg)):
            prefix = f'{registry.scope}.' if registry.scope not in ('mmengine', scope_of(cfg)) else ''
            names.update({own: prefix + own for own in registry.module_dict})
    return [names[own] for own in difflib.get_close_matches(name, names, 3)]


def keys_taken(cfg: Config, path: tuple, node: Mapping) -> set[str] | None:
    """The keys that a dict at this place may have; None if anything may stand there, or nobody can say."""
    last = path[-1] if path else None
    if last == 'paramwise_cfg' and (cfg.get('optim_wrapper') or {}).get('constructor') is not None:
        return None
    if last in _PLAIN_KEYS and 'type' not in node or last == 'clip_grad':
        return _PLAIN_KEYS[last]
    if last in _UNTYPED and 'type' not in node:
        name, num_inputs = _UNTYPED[last]
        owner = get_object_from_string(name)  # None where its package is not installed
        return None if owner is None else set(list(inspect.signature(owner).parameters)[num_inputs:])
    if len(path) == 1 and str(last).endswith('_dataloader'):
        from torch.utils.data import DataLoader

        return parameters(DataLoader) | _LOADER_KEYS
    if path == ('optim_wrapper',):
        return _optim_wrapper_keys(cfg, path, node)
    found = find_type(cfg, path, node) if 'type' in node or '.'.join(map(str, path)) in _DEFAULT_TYPES else None
    if found is None:
        return None
    taken = parameters(found)
    return None if taken is None else taken | {'type', '_scope_', 'init_cfg'}


def _optim_wrapper_keys(cfg: Config, path: tuple, node: Mapping) -> set[str] | None:
    found = find_type(cfg, path, node)
    taken = parameters(found) if found is not None else None
    return None if taken is None else taken | {'type', 'constructor', 'paramwise_cfg'}


def parameters(target: Any) -> set[str] | None:
    """Names of the arguments that a class or function takes, those of its bases included; None for any name."""
    if not inspect.isclass(target):
        return _names(target)[0] if callable(target) and not _names(target)[1] else None
    from mmengine.hooks import CheckpointHook
    from mmengine.runner import Runner

    taken: set[str] = set()
    for owner in target.__mro__:
        if '__init__' not in vars(owner):
            continue
        names, open_ended = _names(owner.__init__)
        taken |= names
        if owner is CheckpointHook:  # hands the rest to the runner, at the first checkpoint
            return taken | _names(Runner.save_checkpoint)[0]
        if not open_ended:
            return taken
    return None


def _names(function: Callable) -> tuple[set[str], bool]:
    """Names of the arguments, and whether others are taken, too."""
    try:
        known = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built-in ones say nothing
        return set(), True
    names = {one.name for one in known if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
    return names - {'self', 'cls'}, any(one.kind == one.VAR_KEYWORD for one in known)


def wrong_arguments(target: Any, node: Mapping) -> Iterator[tuple[str, str]]:
    """Arguments of one of our classes whose values are of another kind than it says: (name, kind that it expects).

    Only plain kinds are looked at: numbers, texts, lists, dicts, and None where that is one of the choices.
    """
    if not inspect.isclass(target) or not target.__module__.startswith('genseg_mm.'):
        return
    for owner in target.__mro__:
        if '__init__' not in vars(owner) or not owner.__module__.startswith('genseg_mm.'):
            continue
        for name, hint in get_type_hints(owner.__init__).items():
            kinds = [get_origin(own) or own for own in _choices(hint)]
            if name in node and all(kind in _KINDS for kind in kinds):
                value = node[name]
                if not any(_KINDS[kind][1](value) for kind in kinds):
                    yield name, ' or '.join(_KINDS[kind][0] for kind in kinds)


def _choices(hint: Any) -> tuple:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


_KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ('an integer', lambda value: _is_number(value, numbers.Integral)),
    float: ('a number', lambda value: _is_number(value, numbers.Real)),
    bool: ('True or False', lambda value: isinstance(value, bool)),
    str: ('a text', lambda value: isinstance(value, str)),
    dict: ('a dict', lambda value: isinstance(value, Mapping)),
    Mapping: ('a dict', lambda value: isinstance(value, Mapping)),
    Sequence: ('a list', lambda value: isinstance(value, (list, tuple, str))),
    list: ('a list', lambda value: isinstance(value, (list, tuple))),
    tuple: ('a list', lambda value: isinstance(value, (list, tuple))),
    type(None): ('None', lambda value: value is None),
}


# ---- ``--cfg-options``: keys that nothing reads are refused, with the keys that were meant

# Top-level keys that tools and runners read although no config has to have them.
_READ = {
    'activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval', 'find_unused_parameters',
    'model_wrapper_cfg', 'runner_type', 'strategy', 'sync_bn', 'tta_model', 'tta_pipeline', 'description_writer',
    'codec', 'suite', 'benchmarks', 'models', 'tables', 'work_dir', 'env_cfg', 'evaluation_dtype',
    'evaluation_channels_last', 'evaluation_codec_dtype', 'evaluation_compile', 'global_batch_size',
}  # fmt: skip
# Variables of earlier versions' configs, and what took their place.
_FORMER = dict(accumulate='global_batch_size', accumulative_counts='global_batch_size')
_OF_A_BENCHMARK = ('task', 'dataset', 'evaluator')
_NUM_PLACES = 4


def check_options(cfg: Config, options: Mapping) -> None:
    """Refuses options that would change nothing.

    An option is read if its key exists in the config below a key that a runner or tool reads, or if it is an argument
    of the type that it is given to. Variables that only the Python code of a config file reads (``accumulate``,
    ``image_size``, ...) have done their work when the options come.

    Args:
        cfg: The config, before the options.
        options: Dotted key -> value.

    Raises:
        ValueError: For the first option that is not read; with the keys that were meant.
    """
    merged = copy.deepcopy(cfg)
    try:
        merged.merge_from_dict(dict(options))
    except (KeyError, TypeError, AttributeError, IndexError, AssertionError):
        merged = cfg  # the walk below, or the merge itself, says what does not fit
    for option in _flat(options):
        _check(cfg, merged, option)


def _flat(options: Mapping, before: str = '') -> Iterator[str]:
    """The options one by one, with those that a dict as value holds."""
    for key, value in options.items():
        name = f'{before}{key}'
        if isinstance(value, Mapping) and value and 'type' not in value and '_delete_' not in value:
            yield from _flat(value, f'{name}.')
        else:
            yield name


def read_at_top(cfg: Config) -> set[str]:
    """Top-level keys that anything reads."""
    from mmengine.runner import Runner

    own = {
        key
        for key, value in cfg._cfg_dict.items()
        if isinstance(value, Mapping) and all(name in value for name in _OF_A_BENCHMARK)
    }
    return own | _READ | (set(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'})


def _check(cfg: Config, merged: Config, option: str) -> None:
    keys = option.split('.')
    read = read_at_top(cfg)
    if keys[0] not in read:
        if keys[0] in cfg:
            raise ValueError(_only_while_parsing(cfg, option, keys[0], read))
        near = did_you_mean(keys[0], {*(own for own in cfg if own in read), *read})
        if keys[0] in _FORMER:
            near = f'; set {_FORMER[keys[0]]}'
        raise ValueError(f'--cfg-options {option}: the config has no {keys[0]!r}{near}')
    old, new, seen = cfg._cfg_dict, merged._cfg_dict, []
    for key in keys:
        if isinstance(old, (list, tuple)):
            if not key.isdigit() or int(key) >= len(old):
                raise ValueError(
                    f'--cfg-options {option}: {".".join(seen)} is a list of {len(old)}, so an '
                    f'index below {len(old)} must follow, but got {key!r}'
                )
            key = int(key)
        elif seen and not (isinstance(old, Mapping) and key in old):
            _check_new_key(merged, option, tuple(map(_number, seen)), new, key)
        old, new = _inside(old, key), _inside(new, key)
        seen.append(str(key))


def _number(key: str) -> str | int:
    return int(key) if key.isdigit() else key


def _inside(node: Any, key: Any) -> Any:
    try:
        return node[key]
    except (KeyError, IndexError, TypeError):
        return None


def _check_new_key(merged: Config, option: str, path: tuple, node: Any, key: str) -> None:

    where = '.'.join(map(str, path))
    taken = keys_taken(merged, path, node if isinstance(node, Mapping) else {})
    if path == ('default_hooks',):  # a new hook, or none, may have any name
        hook = _inside(node, key)
        taken = {key} if hook is None or isinstance(hook, Mapping) and 'type' in hook else set()
    if taken is None or key in taken or key == '_delete_':
        return
    known = {*(node if isinstance(node, Mapping) else ()), *(taken or ())} - {key}
    kind = f' ({node["type"]})' if isinstance(node, Mapping) and isinstance(node.get('type'), str) else ''
    listed = did_you_mean(key, known) or f'; it takes {", ".join(sorted(known)[:12])}'
    raise ValueError(f'--cfg-options {option}: nothing reads {key!r} in {where}{kind}{listed}')


def _only_while_parsing(cfg: Config, option: str, name: str, read: set[str]) -> str:
    """What to set in place of a variable that only the config file itself reads."""
    value = cfg._cfg_dict[name]
    places = [
        path
        for top in cfg._cfg_dict
        if top in read
        for path, own in _values(cfg._cfg_dict[top], top)
        if _alike(path, name) or type(own) is type(value) and own == value
    ]
    # Places of the same name first; a number such as 1 is everywhere.
    places.sort(key=lambda path: (not _alike(path, name), path.count('.')))
    named = [path for path in places if _alike(path, name)]
    everywhere = isinstance(value, (int, float)) and abs(value) < 1000
    few = named if named and (everywhere or len(places) > _NUM_PLACES) else places
    hint = f'; set {", ".join(few[:_NUM_PLACES])}' if few else '; change a copy of the file'
    return (
        f'--cfg-options {option}: {name!r} is a variable that only the code of the config file reads, so that changing '
        f'it here would change nothing{hint}'
    )


def _alike(path: str, name: str) -> bool:
    """Whether the last key has this name, or begins like it (accumulate, accumulative_counts)."""
    last = path.rpartition('.')[2]
    return last == name or len(os.path.commonprefix((last, name))) >= 7


def _values(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, node
    if isinstance(node, Mapping):
        for key in node:
            yield from _values(node[key], f'{path}.{key}')
    elif isinstance(node, (list, tuple)) and any(isinstance(own, (Mapping, list)) for own in node):
        for number, own in enumerate(node):
            yield from _values(own, f'{path}.{number}')
