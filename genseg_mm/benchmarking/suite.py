"""Suites: config files that say which benchmarks there are, which models, and which tables."""

import difflib
import io
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

import genseg_mm
from genseg_mm.command import shipped_root
from genseg_mm.config_file import read_config_file
from genseg_mm.files.write_lock import WriteLock
from genseg_mm.launch.config import override_config

TASKS = ('referring', 'points', 'instances', 'edges')
KINDS = ('model', 'control')
DATA_VARIABLE = 'GENSEG_DATA'
_SUITE_HAS = ('name', 'title', 'description', 'make_data', 'data_root')
_BENCHMARK_NEEDS = ('task', 'title', 'protocol', 'dataset', 'evaluator')
_BENCHMARK_MAY_HAVE = ('tolerance', 'model', 'control_evaluator')
_MODEL_MAY_HAVE = ('title', 'config', 'checkpoint', 'tasks', 'kind', 'settings')
_FOLDER_NAME = re.compile(r'[\w.+-]+')
_PACKAGE = Path(genseg_mm.__file__).resolve().parent


@dataclass(frozen=True)
class Suite:
    """A suite config, checked.

    Attributes:
        path: Its file.
        name: Of the suite.
        benchmarks: Name -> config of a benchmark, plain dicts, in the order of the file.
        models: Name -> entry of a model, of which only ``config`` is needed: ``config`` (a file; or folder or hub id of
            released gen2seg weights), ``checkpoint`` (file of weights), ``title`` (for tables), ``tasks`` (what it can
            do, where its type does not say so), ``kind`` ('model' or 'control') and ``settings`` (of the model over
            those of its config, such as ``dict(processing_size=0)``).
        make_data: Tool that writes the data, or None.
        data_root: Where it writes them.
        cfg: The whole file as plain dicts.
    """

    path: str
    name: str
    benchmarks: dict[str, dict]
    models: dict[str, dict]
    make_data: str | None
    data_root: str | None
    cfg: dict[str, Any]

    def select(self, names: Iterable[str] | None) -> dict[str, dict]:
        """The benchmarks of these names, in the order of the suite; all without names.

        Raises:
            ValueError: If there is none of a name.
        """
        names = list(names or self.benchmarks)
        unknown = [name for name in names if name not in self.benchmarks]
        if unknown:
            raise ValueError(
                f'{self.path} has no benchmark {unknown[0]!r}{nearest(unknown[0], self.benchmarks)}, '
                f'but {", ".join(self.benchmarks)}'
            )
        return {name: cfg for name, cfg in self.benchmarks.items() if name in names}


def read_suite(path: str, options: Mapping | None = None) -> Suite:
    """Reads a suite config.

    A suite that makes its own data is parsed with ``$GENSEG_DATA`` set to its ``data_root``, so that the benchmarks it
    inherits point there.

    Args:
        path: A file of ``configs/benchmarks``.
        options: Of ``--cfg-options``, such as ``{'benchmarks.dram.dataset.indices': 20}``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no suite, or a benchmark lacks something.
    """
    cfg = _parse(path, options)
    suite = cfg.get('suite')
    if not is_suite(cfg):
        raise ValueError(
            f"{path} is not a suite: expected dicts 'suite' and 'benchmarks', but got "
            f'{sorted(cfg.keys())}; suites are in configs/benchmarks'
        )
    unknown = sorted(set(suite) - set(_SUITE_HAS))
    if unknown:
        raise ValueError(f'{path}: suite may have {", ".join(_SUITE_HAS)}, but got {unknown[0]!r}')
    if suite.get('make_data'):
        if not suite.get('data_root'):
            raise ValueError(f'{path}: make_data needs data_root, the folder that it writes')
        with _variable(DATA_VARIABLE, str(suite.data_root)), quiet():
            cfg = _parse(path, options)
    plain = cfg._cfg_dict.to_dict()
    suite = plain['suite']
    for name, benchmark in plain['benchmarks'].items():
        _check_benchmark(path, name, benchmark)
    return Suite(
        path=str(path),
        name=suite.get('name') or Path(path).stem,
        benchmarks=plain['benchmarks'],
        models=dict(plain.get('models') or {}),
        make_data=suite.get('make_data'),
        data_root=suite.get('data_root'),
        cfg=plain,
    )


def is_suite(cfg: Config) -> bool:
    """Whether a config is a suite of benchmarks."""
    return isinstance(cfg.get('suite'), Mapping) and isinstance(cfg.get('benchmarks'), Mapping)


def read_dataset_config(path: str, options: Mapping | None = None) -> Config:
    """Reads a config of which only the dataloaders and benchmarks are needed.

    Args:
        path: A whole config, a suite of ``configs/benchmarks``, or one of ``configs/_base_/datasets`` or
            ``configs/_base_/benchmarks``.
        options: Of ``--cfg-options``.

    Raises:
        FileNotFoundError: If there is no such config, or the data that a suite makes itself are not there.
        ValueError: If it is no config.
    """
    cfg = read_config_file(path)
    if is_suite(cfg):
        suite = read_suite(path, options)
        if suite.make_data and not Path(suite.data_root).is_dir():
            raise FileNotFoundError(
                f'{path} makes its data itself, which are not there: run python {suite.make_data} {suite.data_root}'
            )
        cfg = Config(suite.cfg, filename=path)
    elif options:
        override_config(cfg, options)
    init_default_scope(cfg.get('default_scope', 'genseg_mm'))
    return cfg


def _parse(path: str, options: Mapping | None) -> Config:
    with quiet():
        cfg = read_config_file(path)
    if options:
        override_config(cfg, dict(options))
    return cfg


def _check_benchmark(path: str, name: str, cfg: Any) -> None:
    where = f'{path}: benchmark {name}'
    check_folder_name(name, where)
    if not isinstance(cfg, dict | ConfigDict):
        raise ValueError(f'{where} must be a dict, but got {type(cfg).__name__}')
    missing = [key for key in _BENCHMARK_NEEDS if not cfg.get(key)]
    unknown = sorted(set(cfg) - {*_BENCHMARK_NEEDS, *_BENCHMARK_MAY_HAVE})
    if missing or unknown:
        raise ValueError(
            f'{where} must have {", ".join(_BENCHMARK_NEEDS)} and may have {", ".join(_BENCHMARK_MAY_HAVE)}, but '
            + (f'{missing[0]} is missing' if missing else f'got {unknown[0]!r}')
        )
    if cfg['task'] not in TASKS:
        raise ValueError(f'{where}: task must be one of {TASKS}, but got {cfg["task"]!r}')


def choose_models(suite: Suite, texts: Sequence[str], tasks: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The models of a command line; all of the suite if it names none.

    Args:
        suite: The suite.
        texts: Each a name of the suite's ``models``, or as :func:`parse_model` takes.
        tasks: What the models that are not the suite's can do; by default their type says so.

    Returns:
        Complete entries, with their ``name``; see :class:`Suite`.

    Raises:
        ValueError: If a text is none of these, two models have one name, or ``tasks`` concern none.
    """
    if not texts and not suite.models:
        raise ValueError(f'{suite.path} has no models of its own: name some, such as NAME=CONFIG:CHECKPOINT')
    entries = []
    for text in dict.fromkeys(texts or suite.models):
        if text in suite.models:
            entries.append(suite_model(suite, text))
            continue
        entry = parse_model(text, suite)
        if entry['name'] in suite.models:
            raise ValueError(f'{text}: the suite has a model {entry["name"]} of its own; choose another NAME=...')
        entries.append(dict(entry, tasks=tuple(tasks) if tasks else None))
    names = [entry['name'] for entry in entries]
    if tasks and set(names) <= set(suite.models):
        raise ValueError(
            f"--tasks is for models that are not the suite's, but {', '.join(names)} are: {suite.path} says "
            'what they can do, or their type'
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f'two models are called {twice[0]}; tell them apart with NAME=CONFIG:CHECKPOINT')
    return entries


def suite_model(suite: Suite, name: str) -> dict[str, Any]:
    """The complete entry of a model of the suite.

    Raises:
        ValueError: If it is wrong.
    """
    own: dict[str, Any] = dict(suite.models[name])
    where = f'{suite.path}: model {name}'
    unknown = sorted(set(own) - set(_MODEL_MAY_HAVE))
    if unknown or not isinstance(own.get('config'), str):
        came = repr(unknown[0]) if unknown else f'config={own.get("config")!r}'
        raise ValueError(f'{where} must have a config and may have {_MODEL_MAY_HAVE}, but got {came}')
    kind = own.get('kind', 'model')
    if kind not in KINDS:
        raise ValueError(f'{where}: kind must be one of {KINDS}, but got {kind!r}')
    tasks = own.get('tasks')
    wrong = [task for task in tasks or () if task not in TASKS]
    if wrong:
        raise ValueError(f'{where}: tasks must be of {TASKS}, but got {wrong[0]!r}')
    return _entry(
        check_folder_name(name, where),
        own['config'] if is_released(own['config']) else find_file(own['config']),
        own.get('checkpoint') and find_file(own['checkpoint']),
        title=own.get('title') or name,
        tasks=tuple(tasks) if tasks else None,
        kind=kind,
        settings=own.get('settings'),
    )


def parse_model(text: str, suite: Suite | None = None) -> dict[str, Any]:
    """The complete entry of a model named on the command line.

    Args:
        text: ``NAME=CONFIG:CHECKPOINT``, ``CONFIG:CHECKPOINT``, ``CONFIG`` (a model without weights), or a released
            gen2seg folder or hub id, the latter two with or without ``NAME=``.
        suite: For the message.

    Raises:
        ValueError: If it is none of these.
    """
    name, rest = _split_name(text)
    config, _, checkpoint = rest.partition(':')
    if not is_released(config):
        default = Path(config).stem
        if checkpoint:
            default += f'__{Path(checkpoint).stem}'
        found = find_file(config), find_file(checkpoint) if checkpoint else None
    elif not checkpoint and (os.path.isdir(os.path.expanduser(rest)) or rest.count('/') == 1):
        default, found = Path(rest).name, (rest, None)
    else:
        own = f'a model of the suite ({", ".join(suite.models)}), ' if suite and suite.models else ''
        raise ValueError(
            f'expected {own}NAME=CONFIG:CHECKPOINT, CONFIG:CHECKPOINT, CONFIG (without weights), or a '
            f'released gen2seg folder or hub id, but got {text!r}'
            f'{nearest(text, suite.models) if suite else ""}'
        )
    return _entry(check_folder_name(name or default, f'the name of {text}'), *found)


def _entry(name: str, config: str, checkpoint: str | None = None, **own: Any) -> dict[str, Any]:
    entry = dict(name=name, title=name, config=config, checkpoint=checkpoint, tasks=None, kind='model', settings=None)
    return entry | own


def _split_name(text: str) -> tuple[str, str]:
    """The name before '=', and the rest; a '=' of the path itself, as in 'lr=0.1/config.py', parts nothing."""
    name, sign, rest = text.partition('=')
    if not sign:
        return '', text
    whole, after = (find_file(own.partition(':')[0]) for own in (text, rest))
    if os.path.exists(whole) or ('/' in name and not os.path.exists(after)):
        return '', text
    return name, rest


def is_released(config: str) -> bool:
    """Whether the ``config`` of a model is no config, but a folder or hub id of released gen2seg weights."""
    from genseg_mm.inference.build_model import is_config  # imports torch: a wrong suite is refused before

    return not is_config(config)


def find_file(path: str) -> str:
    """A file named in a suite or on the command line.

    It is relative to the working directory, else to the root of the repository, else to what the installed package
    ships. A path that is nowhere is given back as it is, so that the error of opening it names it.
    """
    given = Path(os.path.expanduser(path))
    if given.is_absolute() or '://' in path:
        return path if '://' in path else str(given)
    inside = given.relative_to('genseg_mm') if given.parts[:1] == ('genseg_mm',) else given
    places = [given, shipped_root() / given, _PACKAGE / inside]
    for place in places:
        if place.is_file():
            return str(place)
    return str(given)


def make_data(suite: Suite, only: Sequence[str] | None = None) -> None:
    """Has the suite's data written if they are not there, under another name until they are whole.

    Args:
        suite: The suite. Its tool is called as ``TOOL OUT``, or ``TOOL OUT --folders NAME ...`` for some of the folders
            in ``data_root``; what it writes into a folder that is there has to be whole at once.
        only: Benchmarks whose data are needed; all if None.

    Raises:
        ValueError: If the suite's tool fails.
    """
    if not suite.make_data or not _lacks_data(suite, only):
        return
    # Runs of several suites, or into several folders, share the data.
    with WriteLock(Path(suite.data_root), 'wait for it', folder=False, wait=True):
        if _lacks_data(suite, only):
            _write_data(suite, only)


def _lacks_data(suite: Suite, only: Sequence[str] | None) -> bool:
    root = Path(suite.data_root)
    wanted = folders_read(suite.select(only).values(), root)
    is_lacking = any(not (root / name).exists() for name in wanted)
    return is_lacking or (only is None and not root.exists())


def _write_data(suite: Suite, only: Sequence[str] | None) -> None:
    root = Path(suite.data_root)
    every, wanted = (folders_read(suite.select(own).values(), root) for own in (None, only))
    missing = sorted(name for name in wanted if not (root / name).exists())
    some = ['--folders', *missing] if set(missing) < every else []
    target = root
    if not root.exists():
        target = root.with_name(f'{root.name}.unfinished')
        shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    what = f' ({", ".join(missing)})' if some else ''
    print(f'{suite.name}: writing its data{what} to {root}', flush=True)
    made = subprocess.run(
        [sys.executable, find_file(suite.make_data), str(target), *some],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if made.returncode:
        raise ValueError(f'{suite.make_data} could not write the data of {suite.path}: {made.stderr.strip()[-500:]}')
    if target != root:
        target.rename(root)


def folders_read(benchmarks: Iterable[Mapping], root: Path) -> set[str]:
    """Names of the folders in ``root`` that the datasets of benchmarks read."""
    names, waiting = set(), [benchmark['dataset'] for benchmark in benchmarks]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            waiting += one.values()
            if 'data_root' in one and Path(one['data_root']) == root:
                prefixes = (one.get('data_prefix') or {}).values()
                waiting += [str(root / prefix) for prefix in prefixes]
        elif isinstance(one, (list, tuple)):
            waiting += one
        elif isinstance(one, str) and Path(one) != root and Path(one).is_relative_to(root):
            names.add(Path(one).relative_to(root).parts[0])
    return names


def nearest(name: str, names: Iterable[str]) -> str:
    """' (did you mean ...?)' for a name that is nearly one of these, else nothing."""
    close = difflib.get_close_matches(name, list(names), 1)
    return f' (did you mean {close[0]!r}?)' if close else ''


def check_folder_name(name: str, what: str) -> str:
    """The name, which has to be usable as that of a folder.

    Raises:
        ValueError: If it is not.
    """
    if not _FOLDER_NAME.fullmatch(name) or name.startswith('.'):
        raise ValueError(f'{what} must be a name of letters, digits and ._+- (it names a folder), but got {name!r}')
    return name


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what is only information off the screen; what concerns a job is in its log."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
