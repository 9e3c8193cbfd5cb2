"""Pairing of rows by their items."""

import numpy as np
import pytest

from genseg_mm.comparing import pair_rows
from genseg_mm.evaluation import SampleResults


def results(scores: dict, kinds: str = '', targets=None, aggregates=None) -> SampleResults:
    values = dict(iou=list(scores.values()))
    if targets:
        values['target'] = targets
    return SampleResults(
        list(scores),
        np.arange(len(scores)),
        {key: np.array(own) for key, own in values.items()},
        dict(kind=list(kinds)) if kinds else {},
        aggregates or dict(mIoU=('mean', 'iou')),
    )


def test_rows_are_paired_by_name():
    pairs = pair_rows(results(dict(c=0.3, a=0.1, b=0.2), 'zxy'), results(dict(b=0.5, c=0.6, a=0.4), 'yzx'))
    assert pairs.a.items == pairs.b.items == ['a', 'b', 'c']
    assert pairs.a.values['iou'].tolist() == [0.1, 0.2, 0.3]
    assert pairs.b.values['iou'].tolist() == [0.4, 0.5, 0.6]
    assert pairs.a.index.tolist() == [1, 2, 0]
    assert pairs.b.index.tolist() == [2, 0, 1]
    assert pairs.a.groups == dict(kind=['x', 'y', 'z'])
    assert pairs.notes == []


def test_other_items_are_refused_unless_the_common_ones_are_asked_for():
    first = results(dict(a=0.1, b=0.2, c=0.3, d=0.4, e=0.5))
    second = results(dict(e=0.9, f=0.8))
    with pytest.raises(ValueError) as caught:
        pair_rows(first, second, names=('old', 'new'))
    assert str(caught.value) == (
        "the items differ: 4 of 5 items of old are not in new: 'a', 'b', 'c', ...; 1 of 2 items of new are not in "
        "old: 'f'. Compare two models on the same benchmark, or only the 1 common items (--common)"
    )
    pairs = pair_rows(first, second, common=True)
    assert (pairs.a.items, pairs.a.values['iou'].tolist()) == (['e'], [0.5])
    assert pairs.b.values['iou'].tolist() == [0.9]
    assert pairs.notes == [
        "4 of 5 items of A are not in B: 'a', 'b', 'c', ...; left out",
        "1 of 2 items of B are not in A: 'f'; left out",
    ]
    with pytest.raises(ValueError, match="no common item: 1 of 1 .* 'x'; .* of the same benchmark?"):
        pair_rows(results(dict(x=1.0)), second, common=True)
    with pytest.raises(ValueError, match='no common item: both are empty'):
        pair_rows(results({}), results({}))


def test_other_ground_truth_is_refused():
    first = results(dict(a=0.1, b=0.2), targets=[10, 20])
    with pytest.raises(ValueError, match=r"of 1 of 2 items differs: .* 'b' has 20 pixels for A and 21 for B"):
        pair_rows(first, results(dict(a=0.1, b=0.2), targets=[10, 21]))
    assert pair_rows(first, results(dict(b=0.2, a=0.1), targets=[20, 10])).a.items == ['a', 'b']


def test_groups_and_metrics_of_one_side_are_left_out_and_named():
    first = results(dict(a=0.1), 'x', aggregates={'mIoU': ('mean', 'iou'), 'AP': ('mean', 'iou')})
    pairs = pair_rows(first, results(dict(a=0.2), 'y'))
    assert (pairs.a.groups, pairs.b.aggregates) == ({}, dict(mIoU=('mean', 'iou')))
    assert pairs.notes == [
        'groups that are not the same in both are left out: kind',
        'metrics that are not the same in both are left out: AP',
    ]
    with pytest.raises(ValueError, match=r"no metric to compare: A has \['mIoU'\], B has \['AP'\]"):
        pair_rows(results(dict(a=0.1)), results(dict(a=0.1), aggregates=dict(AP=('mean', 'iou'))))
