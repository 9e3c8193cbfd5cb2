"""Rows of parquet files, by pyarrow, which is an extra; see ``texts`` for the other tables."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from genseg_mm.files import texts

MAX_PARQUET_BYTES = 4 * 2**30  # of all columns that are read, unpacked, as the file says
ROWS_AT_ONCE = 1024


def read_parquet(path: str | os.PathLike, columns: Sequence[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a table, each with its number from 1, as plain Python values.

    Args:
        path: The file.
        columns: Only these; None reads all.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If pyarrow is missing.
        ValueError: If it is damaged, is no parquet file, lacks a column, or claims more than ``MAX_PARQUET_BYTES``.
    """
    arrow, parquet = _pyarrow(path)
    # What pyarrow raises at damaged files, of which some are built-in exceptions.
    damage = (arrow.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError)
    with texts._opened(path) as file:
        try:
            table = parquet.ParquetFile(file)
            names = list(table.schema_arrow.names)
            claimed = sum(_claimed(table.metadata, group, columns) for group in range(table.metadata.num_row_groups))
        except damage as error:
            raise _damaged(path, error) from error
        lacking = [name for name in columns or () if name not in names]
        if lacking or len(set(names)) < len(names):
            what = f'without {lacking}' if lacking else 'some of them twice'
            raise ValueError(f'{path}: expected the columns {tuple(columns or ())}, but got {names}, {what}')
        if claimed > MAX_PARQUET_BYTES:
            raise ValueError(
                f'{path}: expected at most {MAX_PARQUET_BYTES} bytes of {list(columns or names)} once unpacked, but '
                f'got {claimed}'
            )
        number = 0
        batches = table.iter_batches(ROWS_AT_ONCE, columns=None if columns is None else list(columns))
        while True:
            try:
                rows = next(batches).to_pylist()
            except StopIteration:
                return
            except damage as error:
                raise _damaged(path, error) from error
            for row in rows:
                number += 1
                yield number, row


def parquet_columns(path: str | os.PathLike) -> list[str]:
    """Names of the columns of a file, without reading any row.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If pyarrow is missing.
        ValueError: If it is damaged or no parquet file.
    """
    arrow, parquet = _pyarrow(path)
    with texts._opened(path) as file:
        try:
            return list(parquet.ParquetFile(file).schema_arrow.names)
        except (arrow.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise _damaged(path, error) from error


def _claimed(metadata: Any, group: int, columns: Sequence[str] | None) -> int:
    """Bytes of the columns of a row group once unpacked."""
    row_group = metadata.row_group(group)
    parts = (row_group.column(index) for index in range(row_group.num_columns))
    return sum(
        part.total_uncompressed_size
        for part in parts
        if columns is None or part.path_in_schema.partition('.')[0] in columns
    )


def _pyarrow(path: str | os.PathLike) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"{path} needs pyarrow: pip install 'genseg_mm[parquet]'") from error
    return pyarrow, pyarrow.parquet


def _damaged(path: str | os.PathLike, error: Exception) -> ValueError:
    reason = ' '.join(f'{error}'.split())[:200] or type(error).__name__
    return ValueError(f'{path}: expected a whole parquet file, but got: {reason}')
