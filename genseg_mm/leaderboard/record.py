"""One measured result: a model on a benchmark, its numbers and everything needed to get them again (result.json)."""

import json
import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genseg_mm.files import read_json, write_text

SCHEMA = 1
KINDS = ('model', 'control')
PICTURES = ('best', 'worst', 'random')

_TEXT, _MAYBE_TEXT = (str,), (str, type(None))
_COUNT, _MAYBE_COUNT = (int,), (int, type(None))
_NUMBER, _MAYBE_NUMBER = (int, float), (int, float, type(None))
# Keys that a record must have. Others are kept and shown, so that a runner may say more.
KEYS: dict[str, dict[str, tuple[type, ...]]] = {
    'model': dict(
        name=_TEXT,
        title=_TEXT,
        kind=_TEXT,
        config=_MAYBE_TEXT,
        config_sha256=_MAYBE_TEXT,
        checkpoint=_MAYBE_TEXT,
        checkpoint_sha256=_MAYBE_TEXT,
        num_parameters=_MAYBE_COUNT,
    ),
    'benchmark': dict(
        suite=_TEXT, name=_TEXT, title=_TEXT, task=_TEXT, protocol=_TEXT, sha256=_MAYBE_TEXT, tolerance=_MAYBE_NUMBER
    ),
    'dataset': dict(
        type=_TEXT,
        items=_COUNT,
        expected=_MAYBE_COUNT,
        difference=_MAYBE_TEXT,
        incomplete=_MAYBE_TEXT,
        fingerprint=_MAYBE_TEXT,
    ),
    'run': dict(
        key=_TEXT,
        seed=_MAYBE_COUNT,
        started=_TEXT,
        seconds=_NUMBER,
        seconds_per_item=(dict,),
        processes=_COUNT,
        batch_size=_COUNT,
        one_by_one=(bool,),
        threads=_MAYBE_COUNT,
        device=_TEXT,
        hardware=_TEXT,
        packages=(dict,),
        commit=_MAYBE_TEXT,
        command=_TEXT,
    ),
}
_TIMES = ('model', 'data', 'metric')


@dataclass(frozen=True)
class Record:
    """A result.json of schema 1.

    Args:
        model: name, title, kind ('model' or 'control'), config, config_sha256, checkpoint, checkpoint_sha256,
            num_parameters.
        benchmark: suite, name, title, task, protocol, sha256, tolerance (in the units of the metrics).
        metrics: Metric -> number, percent unless the metric says otherwise; NaN where the data leave it undefined.
        dataset: type, items, expected (None if unknown), difference (None if complete), incomplete, fingerprint.
        run: key, seed, started (ISO 8601 with time zone), seconds, seconds_per_item {model, data, metric}, processes,
            batch_size, one_by_one, threads, device, hardware, packages, commit, command.
        examples: Pictures {kind, file, caption, score}; files are relative to the folder of the result.json.
        folder: Where it was read from, None if it was not read from a file of its own.
    """

    model: dict[str, Any]
    benchmark: dict[str, Any]
    metrics: dict[str, float]
    dataset: dict[str, Any]
    run: dict[str, Any]
    examples: list[dict[str, Any]] = field(default_factory=list)
    folder: Path | None = field(default=None, compare=False)

    @property
    def name(self) -> tuple[str, str]:
        """(model, benchmark): at most one record of an output folder has it."""
        return self.model['name'], self.benchmark['name']

    @property
    def is_control(self) -> bool:
        return self.model['kind'] == 'control'

    @property
    def started(self) -> datetime:
        """Start of the run in UTC."""
        return _utc(self.run['started'])

    @property
    def incomplete(self) -> str | None:
        """That the data are not the complete ones, short: '6 of 718 pictures'; None if nothing speaks against them.

        The whole story is ``dataset['difference']``, which may also name small differences from counts that are not
        confirmed.
        """
        return self.dataset['incomplete']

    def file(self, name: str) -> Path | None:
        """A file of the record by its name in the folder; None if it is outside: records may come from others."""
        if self.folder is None:
            return None
        try:
            path = (self.folder / name).resolve()
        except (OSError, ValueError):  # no name of a file: a NUL in it, a loop of links
            return None
        return path if path.is_relative_to(self.folder.resolve()) else None

    @classmethod
    def from_dict(cls, data: Any, where: str | Path = 'record', folder: Path | None = None) -> 'Record':
        """Checks the parsed JSON.

        Raises:
            ValueError: If a key is missing or has a wrong value; names `where` and the key.
        """
        _check(data, where)
        metrics = _checked_metrics(data.get('metrics'), where)
        examples = _checked_examples(data.get('examples', []), where)
        sections = {section: data[section] for section in KEYS}
        return cls(**sections, metrics=metrics, examples=examples, folder=folder)

    def to_dict(self) -> dict[str, Any]:
        """What result.json holds; NaN is written as null, because JSON has no NaN."""
        numbers = {key: None if value is None or math.isnan(value) else value for key, value in self.metrics.items()}
        return dict(
            schema=SCHEMA,
            model=self.model,
            benchmark=self.benchmark,
            metrics=numbers,
            dataset=self.dataset,
            run=self.run,
            examples=self.examples,
        )

    @classmethod
    def read(cls, path: str | Path) -> 'Record':
        """Reads a result.json.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no JSON or no valid record; names the file and what is wrong.
        """
        path = Path(path)
        return cls.from_dict(_content(path), path, path.parent)

    def write(self, path: str | Path) -> None:
        """Writes a result.json at once: a reader or a killed run never sees half of it.

        Raises:
            ValueError: If the record is not valid.
        """
        data = self.to_dict()
        self.from_dict(data, path)
        write_text(path, json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + '\n')


def _content(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f'{path}: expected a result.json or leaderboard.json')
    return read_json(path)


def read_records(path: str | Path) -> list[Record]:
    """Records of a result.json, of a leaderboard.json or of a folder of MODEL/BENCHMARK/result.json.

    Returns:
        In the order of the file, or sorted by path.

    Raises:
        FileNotFoundError: If there is no such file, or no record in the folder.
        ValueError: If a file is not valid, or two records are of the same model and benchmark.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob('*/*/result.json')) or sorted(path.glob('**/result.json'))
        if not files:
            raise FileNotFoundError(
                f'{path}: expected MODEL/BENCHMARK/result.json in it, but there is none: run tools/benchmark.py first'
            )
        records = [Record.read(file) for file in files]
    else:
        data = _content(path)
        if isinstance(data, dict) and 'records' in data:
            records = _records_of_leaderboard(data, path)
        else:
            records = [Record.from_dict(data, path, path.parent)]
    _refuse_doubles(records, path)
    return records


def _records_of_leaderboard(data: dict, path: Path) -> list[Record]:
    if data.get('schema') != SCHEMA or not isinstance(data['records'], list):
        raise ValueError(
            f'{path}: expected schema {SCHEMA} and a list of records, but got schema {data.get("schema")!r} and '
            f'{type(data["records"]).__name__}'
        )
    records = []
    for number, entry in enumerate(data['records']):
        record = Record.from_dict(entry, f'{path}: record {number}')
        records.append(replace(record, folder=path.parent.joinpath(*record.name)))
    return records


def _refuse_doubles(records: list[Record], path: Path) -> None:
    seen: dict[tuple[str, str], Path | None] = {}
    for record in records:
        if record.name in seen:
            raise ValueError(
                f'{path}: expected one record of model {record.name[0]!r} on benchmark {record.name[1]!r}, but got '
                f'two ({seen[record.name]} and {record.folder}): remove one'
            )
        seen[record.name] = record.folder


def _check(data: Any, where: str | Path) -> None:
    """Checks all of a parsed result.json but metrics and examples.

    Raises:
        ValueError: If a key is missing or has a wrong value; names `where` and the key.
    """
    if not isinstance(data, dict):
        raise ValueError(f'{where}: expected an object, but got {type(data).__name__}')
    if data.get('schema') != SCHEMA:
        raise ValueError(
            f'{where}: expected schema {SCHEMA}, but got {data.get("schema")!r}: measure it again with this version'
        )
    for section, keys in KEYS.items():
        _check_section(data, section, keys, where)
    _check_values(data, where)


def _check_section(data: dict, section: str, keys: dict[str, tuple[type, ...]], where: str | Path) -> None:
    values = data.get(section)
    if not isinstance(values, dict):
        raise ValueError(f'{where}: expected an object {section!r}, but got {values!r}')
    missing = sorted(keys.keys() - values.keys())
    if missing:
        raise ValueError(f'{where}: {section} lacks {", ".join(missing)}')
    for key, types in keys.items():
        value = values[key]
        if not isinstance(value, types) or isinstance(value, bool) and bool not in types:
            names = ' or '.join('null' if kind is type(None) else kind.__name__ for kind in types)
            raise ValueError(f'{where}: expected {section}.{key} as {names}, but got {value!r}')


def _check_values(data: dict, where: str | Path) -> None:
    kind, items, run = data['model']['kind'], data['dataset']['items'], data['run']
    if kind not in KINDS:
        raise ValueError(f'{where}: expected model.kind as one of {KINDS}, but got {kind!r}')
    for section in ('model', 'benchmark'):
        name = data[section]['name']
        if not name or name in ('.', '..') or any(mark in name for mark in '/\\\0'):
            raise ValueError(f'{where}: expected {section}.name as the name of a folder, but got {name!r}')
    if items < 0:
        raise ValueError(f'{where}: expected dataset.items >= 0, but got {items}')
    tolerance = data['benchmark']['tolerance']
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise ValueError(f'{where}: expected benchmark.tolerance >= 0, but got {tolerance!r}')
    try:
        _utc(run['started'])
    except ValueError:
        raise ValueError(
            f'{where}: expected run.started as an ISO time such as 2026-01-31T12:00:00+00:00, but got '
            f'{run["started"]!r}'
        ) from None
    for key in _TIMES:
        seconds = run['seconds_per_item'].get(key)
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
            raise ValueError(f'{where}: expected run.seconds_per_item.{key} as a number, but got {seconds!r}')


def _checked_metrics(metrics: Any, where: str | Path) -> dict[str, float]:
    """The numbers of a record as floats, NaN for null. Raises ValueError."""
    if not isinstance(metrics, dict) or not metrics:
        raise ValueError(f'{where}: expected metrics as an object of numbers, but got {metrics!r}')
    numbers = {}
    for key, value in metrics.items():
        if value is None:
            value = math.nan
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isinf(value):
            raise ValueError(f'{where}: expected metrics.{key} as a finite number or null, but got {value!r}')
        numbers[key] = float(value)
    return numbers


def _checked_examples(examples: Any, where: str | Path) -> list[dict[str, Any]]:
    """The example pictures of a record. Raises ValueError."""
    if not isinstance(examples, list):
        raise ValueError(f'{where}: expected a list of examples, but got {examples!r}')
    for number, example in enumerate(examples):
        texts = [example.get(key) for key in ('file', 'caption')] if isinstance(example, dict) else [None]
        if not all(isinstance(text, str) for text in texts) or example.get('kind') not in PICTURES:
            raise ValueError(
                f'{where}: expected example {number} with texts file and caption and a kind of {PICTURES}, but got '
                f'{example!r}'
            )
        if not isinstance(example.get('score'), (int, float, type(None))):
            raise ValueError(
                f'{where}: expected a number as the score of example {number}, but got {example["score"]!r}'
            )
    return examples


def _utc(text: str) -> datetime:
    """An ISO 8601 time as UTC; one without a zone is taken as UTC.

    Raises:
        ValueError: If it is none.
    """
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
