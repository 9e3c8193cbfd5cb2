"""Suites: config files that say which benchmarks there are, which models, and which tables."""

import difflib
import io
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from genseg_mm.config_file import read_config_file
from genseg_mm.launch.config import override_config

TASKS = ('referring', 'points', 'instances', 'edges')
DATA_VARIABLE = 'GENSEG_DATA'
_NEEDED = ('task', 'title', 'protocol', 'dataset', 'evaluator')
_MAY_HAVE = ('tolerance', 'model', 'control_evaluator')
_SUITE_HAS = ('name', 'title', 'description', 'make_data', 'data_root')
_FOLDER_NAME = re.compile(r'[\w.+-]+')


@dataclass(frozen=True)
class Suite:
    """A suite config, checked.

    Attributes:
        path: Its file.
        name: Of the suite.
        benchmarks: Name -> config of a benchmark, plain dicts, in the order of the file.
        models: Name -> entry of a model.
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
    if not isinstance(suite, dict) or not isinstance(cfg.get('benchmarks'), dict):
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


def _parse(path: str, options: Mapping | None) -> Config:
    with quiet():
        cfg = read_config_file(path)
    if options:
        override_config(cfg, dict(options))
    return cfg


def nearest(name: str, names: Iterable[str]) -> str:
    """' (did you mean ...?)' for a name that is nearly one of these, else nothing."""
    close = difflib.get_close_matches(name, list(names), 1)
    return f' (did you mean {close[0]!r}?)' if close else ''


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


def check_folder_name(name: str, what: str) -> str:
    """The name, which has to be usable as that of a folder.

    Raises:
        ValueError: If it is not.
    """
    if not _FOLDER_NAME.fullmatch(name) or name.startswith('.'):
        raise ValueError(f'{what} must be a name of letters, digits and ._+- (it names a folder), but got {name!r}')
    return name


def _check_benchmark(path: str, name: str, cfg: Any) -> None:
    where = f'{path}: benchmark {name}'
    check_folder_name(name, where)
    if not isinstance(cfg, dict | ConfigDict):
        raise ValueError(f'{where} must be a dict, but got {type(cfg).__name__}')
    missing = [key for key in _NEEDED if not cfg.get(key)]
    unknown = sorted(set(cfg) - {*_NEEDED, *_MAY_HAVE})
    if missing or unknown:
        raise ValueError(
            f'{where} must have {", ".join(_NEEDED)} and may have {", ".join(_MAY_HAVE)}, but '
            + (f'{missing[0]} is missing' if missing else f'got {unknown[0]!r}')
        )
    if cfg['task'] not in TASKS:
        raise ValueError(f'{where}: task must be one of {TASKS}, but got {cfg["task"]!r}')
