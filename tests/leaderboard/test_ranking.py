"""Ranks by hand."""

import pytest

from genseg_mm.leaderboard.ranking import best, column_ranks, mean_ranks, places


@pytest.mark.parametrize(
    'values, ranks',
    [
        ([80.0, None, 90.0, 80.0], [2.5, None, 1.0, 2.5]),
        ([1.0, 1.0, 1.0], [2.0, 2.0, 2.0]),
        ([None, None], [None, None]),
        ([], []),
    ],
)
def test_equal_values_share_the_mean_of_their_places(values, ranks):
    assert column_ranks(values) == ranks


def test_lower_may_be_better():
    assert column_ranks([3.0, 1.0, 2.0], higher_is_better=False) == [3.0, 1.0, 2.0]
    assert best([3.0, 1.0, None, 1.0], higher_is_better=False) == [False, True, False, True]


def test_mean_of_ranks_by_hand():
    # ranks in column 1: 1, 2, 3; in column 2: 3, 1.5, 1.5
    rows = [[90.0, 10.0], [80.0, 20.0], [70.0, 20.0]]
    assert mean_ranks(rows, [True, True]) == [2.0, 1.75, 2.25]


def test_a_row_that_lacks_a_number_takes_no_part():
    # without the second row, the ranks are (1, 2) and (2, 1); with it they would be (2, 2) and (3, 1)
    rows = [[80.0, 10.0], [99.0, None], [70.0, 20.0]]
    assert mean_ranks(rows, [True, True]) == [1.5, None, 1.5]
    assert mean_ranks(rows, [True, True], complete=False) == [2.0, 1.0, 2.0]
    assert mean_ranks([[None]], [True], complete=False) == [None]


def test_equal_scores_share_the_better_place():
    assert places([1.5, 1.0, None, 1.5, 3.0]) == [2, 1, None, 2, 4]
    assert places([0.1 + 0.2, 0.3]) == [1, 1]
    assert places([]) == []


def test_best_of_a_column():
    assert best([1.0, 3.0, None, 3.0]) == [False, True, False, True]
    assert best([None]) == [False]
