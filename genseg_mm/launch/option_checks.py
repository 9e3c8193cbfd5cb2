"""``--cfg-options``: keys that nothing reads are refused, with the keys that were meant."""

import copy
import inspect
import os
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from genseg_mm.launch.command_line import did_you_mean

# Top-level keys that tools and runners read although no config has to have them.
_READ = {
    'activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval', 'find_unused_parameters',
    'model_wrapper_cfg', 'runner_type', 'strategy', 'sync_bn', 'tta_model', 'tta_pipeline', 'description_writer',
    'codec', 'suite', 'benchmarks', 'models', 'tables', 'work_dir', 'env_cfg',
}  # fmt: skip
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
    from genseg_mm.launch.config_types import keys_taken

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
