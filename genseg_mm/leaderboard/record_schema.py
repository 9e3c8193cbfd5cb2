"""What a valid result.json holds."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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


def check(data: Any, where: str | Path) -> None:
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


def parse_time(text: str) -> datetime:
    """An ISO 8601 time as UTC; one without a zone is taken as UTC.

    Raises:
        ValueError: If it is none.
    """
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


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
        parse_time(run['started'])
    except ValueError:
        raise ValueError(
            f'{where}: expected run.started as an ISO time such as 2026-01-31T12:00:00+00:00, but got '
            f'{run["started"]!r}'
        ) from None
    for key in _TIMES:
        seconds = run['seconds_per_item'].get(key)
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
            raise ValueError(f'{where}: expected run.seconds_per_item.{key} as a number, but got {seconds!r}')


def checked_metrics(metrics: Any, where: str | Path) -> dict[str, float]:
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


def checked_examples(examples: Any, where: str | Path) -> list[dict[str, Any]]:
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
