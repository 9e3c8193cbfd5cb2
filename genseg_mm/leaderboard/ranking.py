"""Ranks of the rows of a table."""

import math
import statistics
from collections.abc import Sequence

Number = float | None


def column_ranks(values: Sequence[Number], higher_is_better: bool = True) -> list[Number]:
    """1 for the best; equal values share the mean of their places; None stays None.

    >>> column_ranks([80.0, None, 90.0, 80.0])
    [2.5, None, 1.0, 2.5]
    """
    sign = -1 if higher_is_better else 1
    present = sorted(sign * value for value in values if value is not None)
    ranks: list[Number] = []
    for value in values:
        if value is None:
            ranks.append(None)
            continue
        first = present.index(sign * value) + 1
        ranks.append(first + (present.count(sign * value) - 1) / 2)
    return ranks


def mean_ranks(
    rows: Sequence[Sequence[Number]], higher_is_better: Sequence[bool], complete: bool = True
) -> list[Number]:
    """Mean over the columns of each row's rank.

    Args:
        rows: Values, one sequence per row, one value or None per column.
        higher_is_better: Per column.
        complete: Rows that lack a value get None, and take no part in the ranks of the others. Otherwise, every row
            has the mean over the columns that it has.

    Returns:
        One mean per row, smaller is better, None for a row without one.
    """
    if complete:
        rows = [row if all(value is not None for value in row) else [None] * len(row) for row in rows]
    columns = [column_ranks([row[number] for row in rows], higher) for number, higher in enumerate(higher_is_better)]
    means: list[Number] = []
    for number in range(len(rows)):
        own = [column[number] for column in columns if column[number] is not None]
        means.append(statistics.fmean(own) if own else None)
    return means


def places(scores: Sequence[Number]) -> list[int | None]:
    """Places by score, the smallest first; equal scores share the better place (1, 2, 2, 4)."""
    present = [score for score in scores if score is not None]
    return [
        None if score is None else 1 + sum(other < score and not math.isclose(other, score) for other in present)
        for score in scores
    ]


def best(values: Sequence[Number], higher_is_better: bool = True) -> list[bool]:
    """Which values are the best one, all of them at a tie."""
    present = [value for value in values if value is not None]
    if not present:
        return [False] * len(values)
    top = max(present) if higher_is_better else min(present)
    return [value == top for value in values]
