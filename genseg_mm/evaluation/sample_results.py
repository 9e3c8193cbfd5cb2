"""What a metric measured for every single item, on disk: for comparing two models item by item."""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as short_repr
from typing import Any

import numpy as np

from genseg_mm.files import parse_json
from genseg_mm.files.arrays import read_npz
from genseg_mm.files.whole_files import whole_file

_TEXTS = 'texts'
_INDEX = 'index'
_VALUE = 'value.'
_GROUP = 'group.'


@dataclass(frozen=True)
class SampleResults:
    """One row for every item of a benchmark (a sentence, an instance, a picture), R rows in all.

    Two results are of the same benchmark where their ``items`` are the same; rows are told apart by them, not by
    their place. An item is written ``'<picture>#<what in it>'``, e.g. ``'COCO_train2014_000000000009.jpg#sent 12'`` or
    ``'val/3.jpg#id 2'``, or ``'<picture>'`` where the whole picture is the item; a picture's name has no ``#``.

    An aggregate says how a metric comes from the rows, see :meth:`metric`: ``('mean', 'iou')`` or
    ``('ratio', 'intersection', 'union')``.

    Args:
        items: Names of the items, unique, the same for every model and machine.
        index: Dataset index of the picture of each row, (R,) int64.
        values: Numbers by name, (R,) each, all finite; kept as int64 or float64.
        groups: A text for each row by name, e.g. ``kind``, ``length``, ``subset``, ``size``; '' where it has none.
        aggregates: Metric -> how to compute it.

    Raises:
        ValueError: If lengths differ, an item is there twice, a value is not finite or an aggregate's column is
            missing or, in a ratio, not of integers.
    """

    items: Sequence[str]
    index: np.ndarray
    values: dict[str, np.ndarray]
    groups: dict[str, Sequence[str]]
    aggregates: dict[str, tuple]

    def __post_init__(self) -> None:
        items = list(self.items)
        _check_texts('items', items, len(items))
        if len(set(items)) < len(items):
            seen: set[str] = set()
            twice = next(item for item in items if item in seen or seen.add(item))
            raise ValueError(f'items must be unique, but got {twice!r} more than once')
        index = _numbers('index', self.index, len(items))
        index = index if items else index.astype(np.int64)  # numpy's [] is of fractions
        if index.dtype != np.int64:
            raise ValueError(f'index must be of integers, but got {index.dtype}')
        groups = {key: list(texts) for key, texts in self.groups.items()}
        for key, texts in groups.items():
            _check_texts(f'groups[{key!r}]', texts, len(items))
        values = {key: _numbers(f'values[{key!r}]', own, len(items)) for key, own in self.values.items()}
        aggregates = {name: tuple(how) for name, how in self.aggregates.items()}
        for name, how in aggregates.items():
            _check_aggregate(name, how, values)
        checked = dict(items=items, index=index, values=values, groups=groups)
        for field, value in dict(checked, aggregates=aggregates).items():
            object.__setattr__(self, field, value)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def pictures(self) -> list[str]:
        """The picture of each row: its item up to the first ``#``."""
        return [item.partition('#')[0] for item in self.items]

    def metric(self, name: str, rows: np.ndarray | None = None) -> float:
        """An aggregate in percent, correctly rounded, so that the order of the rows does not matter.

        Args:
            name: One of ``aggregates``.
            rows: Indices or mask of the rows to take; all by default.

        Returns:
            100 times the mean, or the sum of the first column over that of the second; nan where there is no row or the
            second sum is 0.

        Raises:
            ValueError: If there is no such aggregate.
        """
        if name not in self.aggregates:
            raise ValueError(
                f'metric must be one of {sorted(self.aggregates)}, but got {name!r}; the others of the run are no '
                'aggregates of single items'
            )
        how, *columns = self.aggregates[name]
        taken = [self.values[key] if rows is None else self.values[key][rows] for key in columns]
        if how == 'mean':
            return 100.0 * math.fsum(taken[0].tolist()) / len(taken[0]) if len(taken[0]) else math.nan
        below = int(taken[1].sum())
        return 100.0 * int(taken[0].sum()) / below if below else math.nan

    def take(self, rows: np.ndarray | Sequence[int]) -> 'SampleResults':
        """The rows of the given indices, in their order."""
        rows = np.asarray(rows, np.int64)
        return SampleResults(
            items=[self.items[row] for row in rows],
            index=self.index[rows],
            values={key: own[rows] for key, own in self.values.items()},
            groups={key: [texts[row] for row in rows] for key, texts in self.groups.items()},
            aggregates=self.aggregates,
        )

    def save(self, path: str | os.PathLike) -> None:
        """Writes a compressed ``.npz`` without pickles: either the whole file is there afterwards, or the old one.

        Whole numbers take the smallest type that holds them, a group's texts are stored once each.

        Raises:
            WriteError: If it cannot be written.
        """
        arrays, names = {_INDEX: _smallest(self.index)}, {}
        for key, own in self.values.items():
            arrays[_VALUE + key] = _smallest(own) if own.dtype == np.int64 else own
        for key, texts in self.groups.items():
            names[key] = sorted(set(texts))
            place = {text: number for number, text in enumerate(names[key])}
            arrays[_GROUP + key] = _smallest(np.array([place[text] for text in texts], np.int64))
        texts = dict(schema=1, items=self.items, groups=names, aggregates=self.aggregates)
        arrays[_TEXTS] = np.frombuffer(json.dumps(texts).encode(), np.uint8)
        with whole_file(path) as part, open(part, 'wb') as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> 'SampleResults':
        """Reads what :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged or holds something else.
        """
        path = os.fspath(path)
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f'no file {path!r}: expected the sample results (samples.npz) that a metric writes with sample_file'
            )
        try:
            return _from_arrays(cls, read_npz(path))
        except (ValueError, KeyError) as error:
            raise ValueError(
                f'{path}: not a whole file of sample results: {error}; evaluate again to write it anew'
            ) from error
        except (AttributeError, TypeError, IndexError) as error:
            raise ValueError(f'{path}: not a file of sample results: {error}') from error


def _from_arrays(cls: type[SampleResults], arrays: Mapping[str, np.ndarray]) -> SampleResults:
    texts = parse_json(arrays[_TEXTS].tobytes(), 'its texts', 'are no JSON')
    if texts.get('schema') != 1:
        raise ValueError(f'schema must be 1, but got {texts.get("schema")!r}')
    groups = {}
    for key, names in texts['groups'].items():
        codes = arrays[_GROUP + key]
        if len(codes) and not 0 <= codes.min() <= codes.max() < len(names):
            raise ValueError(f'groups[{key!r}]: a number lies outside of its {len(names)} texts')
        groups[key] = [names[code] for code in codes.tolist()]
    values = {key[len(_VALUE) :]: own for key, own in arrays.items() if key.startswith(_VALUE)}
    return cls(items=texts['items'], index=arrays[_INDEX], values=values, groups=groups, aggregates=texts['aggregates'])


def _check_texts(name: str, texts: list, length: int) -> None:
    if len(texts) != length:
        raise ValueError(f'{name} must have one text for each of {length} items, but got {len(texts)}')
    wrong = next((text for text in texts if not isinstance(text, str)), '')
    if wrong != '':
        raise ValueError(f'{name} must be texts, but got {short_repr(wrong)}')


def _numbers(name: str, numbers: np.ndarray, length: int) -> np.ndarray:
    numbers = np.asarray(numbers)
    if numbers.shape != (length,):
        raise ValueError(f'{name} must have one number for each of {length} items, but got the shape {numbers.shape}')
    if numbers.dtype.kind in 'bui':
        return numbers.astype(np.int64)
    if numbers.dtype.kind != 'f':
        raise ValueError(f'{name} must be of numbers, but got {numbers.dtype}')
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise ValueError(f'{name} must be finite, but got {numbers[row]} in row {row}')
    return numbers.astype(np.float64)


def _check_aggregate(name: str, how: tuple, values: Mapping[str, np.ndarray]) -> None:
    columns = how[1:]
    if (how[:1], len(columns)) not in ((('mean',), 1), (('ratio',), 2)):
        raise ValueError(f"aggregates[{name!r}] must be ('mean', column) or ('ratio', column, column), but got {how}")
    for column in columns:
        if column not in values:
            raise ValueError(f'aggregates[{name!r}] needs the column {column!r}, but values are {sorted(values)}')
        fractions = len(values[column]) and values[column].dtype != np.int64
        if how[0] == 'ratio' and fractions:
            raise ValueError(f'aggregates[{name!r}]: a ratio is of sums of integers, but {column!r} is of fractions')


def _smallest(numbers: np.ndarray) -> np.ndarray:
    if not len(numbers):
        return numbers
    low, high = int(numbers.min()), int(numbers.max())
    kinds = (np.uint8, np.uint16, np.uint32) if low >= 0 else (np.int8, np.int16, np.int32)
    fitting = (kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    return numbers.astype(next(fitting, np.int64))


# ---- names of items and pictures in sample results: the same for every model, machine and batch size


def told_apart(names: Sequence[str]) -> list[str]:
    """Names in the dataset's order, of which repeated ones get ' (2)', ' (3)' ... appended."""
    seen: Counter[str] = Counter()
    taken, unique = set(names), []
    for name in names:
        seen[name] += 1
        number, own = seen[name], name
        while number > 1 and (own := f'{name} ({number})') in taken:
            number += 1
        seen[name] = number
        taken.add(own)
        unique.append(own)
    return unique


def picture_names(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """``'<subset>/<picture>'`` of each entry; the subset is left out where there is none.

    Pictures of one name (in several folders) are called by their ``img_id``.

    Args:
        entries: In the dataset's order; ``picture``, the name of the file, ``img_id`` and ``subset``.
    """

    def name(entry: Mapping[str, Any], own: Any) -> str:
        return (f'{entry["subset"]}/{own}' if entry['subset'] else f'{own}').replace('#', '%23')

    names = [name(entry, entry['picture']) for entry in entries]
    times = Counter(names)
    names = [
        name(entry, entry['img_id']) if times[own] > 1 and entry.get('img_id') is not None else own
        for entry, own in zip(entries, names, strict=True)
    ]
    return told_apart(names)
