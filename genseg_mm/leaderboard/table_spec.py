"""What a table of a suite's config asks for, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BETTER = ('higher', 'lower', None)


@dataclass(frozen=True)
class Column:
    """A metric of a benchmark.

    Args:
        name: Heading; published numbers of the same name stand in this column.
        benchmark: Name in the suite.
        metric: Key of a record's metrics.
        unit: Of the metric, '%' unless the config says otherwise.
        better: 'higher', 'lower' or None: not ranked.
    """

    name: str
    benchmark: str
    metric: str
    unit: str = '%'
    better: str | None = 'higher'


@dataclass(frozen=True)
class TableSpec:
    """One table of the leaderboard.

    Args:
        name: Unique in the suite.
        title: Heading.
        columns: At least one, names unique.
        note: A paragraph under the heading.
        reported: Name of the published numbers beside ours (`reported_rows.names`), None for none.
        protocol: Of our numbers. Published ones are ranked with them only if theirs is exactly the same.
        rank_by: Name of the column that decides, None for the mean of ranks over all columns.
        digits: Decimals of our numbers; as many as the published ones have if None.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    note: str = ''
    reported: str | None = None
    protocol: str | None = None
    rank_by: str | None = None
    digits: int | None = None

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], benchmarks: Mapping[str, Any]) -> 'TableSpec':
        """Checks an entry of the config's `tables`.

        Args:
            table: The entry.
            benchmarks: Those of the suite, by name.

        Raises:
            ValueError: If a key is unknown or missing, or names what is not there.
        """
        where = f'table {table.get("name")!r}'
        _check_keys(cls, table, ('name', 'title', 'columns'), where)
        columns = []
        for column in table['columns']:
            _check_keys(Column, column, ('name', 'benchmark', 'metric'), f'a column of {where}')
            columns.append(Column(**column))
        spec = cls(**{**table, 'columns': tuple(columns)})
        spec._check(benchmarks, where)
        return spec

    def _check(self, benchmarks: Mapping[str, Any], where: str) -> None:
        names = [column.name for column in self.columns]
        if not names or len(set(names)) < len(names):
            raise ValueError(f'{where}: expected columns with names of their own, but got {names}')
        for column in self.columns:
            if column.benchmark not in benchmarks:
                raise ValueError(
                    f'{where}: expected the benchmark of column {column.name!r} as one of {list(benchmarks)}, but got '
                    f'{column.benchmark!r}'
                )
            if column.better not in BETTER:
                raise ValueError(
                    f'{where}: expected better of column {column.name!r} as one of {BETTER}, but got {column.better!r}'
                )
        ranked = [column.name for column in self.columns if column.better]
        if self.rank_by is not None and self.rank_by not in ranked:
            raise ValueError(f'{where}: expected rank_by as one of {ranked} or None, but got {self.rank_by!r}')


def _check_keys(cls: type, entry: Mapping[str, Any], needed: tuple[str, ...], where: str) -> None:
    allowed = cls.__dataclass_fields__
    unknown = [key for key in entry if key not in allowed]
    missing = [key for key in needed if key not in entry]
    if unknown or missing:
        raise ValueError(
            f'{where}: expected the keys {", ".join(allowed)}, but '
            + ' and '.join([f'got {key!r}' for key in unknown] + [f'{key!r} is missing' for key in missing])
        )
