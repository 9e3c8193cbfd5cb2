"""Comparison of two models: rows paired by their items, groups, items that stand out, and how it reads."""

import json
import math

import numpy as np
import pytest

from genseg_mm.comparing import compare, pair_rows
from genseg_mm.comparing.comparison import unique_metrics
from genseg_mm.comparing.report import as_markdown, as_text, summary, tables
from genseg_mm.evaluation import SampleResults

AGGREGATES = dict(
    oIoU=('ratio', 'intersection', 'union'), mIoU=('mean', 'iou'), gIoU=('mean', 'iou'), Pr=('mean', 'hit')
)  # fmt: skip


def results(intersections: list[int], items: list[str], kinds: str, **kwargs) -> SampleResults:
    values = dict(intersection=intersections, union=[10] * len(intersections))
    values = {key: np.array(own) for key, own in values.items()}
    values['iou'] = values['intersection'] / 10
    values['hit'] = values['iou'] >= 0.5
    groups = dict(kind=list(kinds), subset=['val'] * len(items))
    return SampleResults(items, np.arange(len(items)), values, groups, AGGREGATES, **kwargs)


ITEMS = ['a#1', 'a#2', 'b#3', 'c#4', 'd#5', 'e#6']
A = results([2, 8, 5, 0, 9, 1], ITEMS, 'xxxyyy')
B = results([6, 5, 5, 1, 4, 2], ITEMS, 'xxxyyy')


def test_groups_by_hand():
    found = compare(A, B, resamples=200)
    assert [own.metric for own in found.overall.differences] == ['oIoU', 'mIoU', 'Pr']
    assert (found.overall.wins, found.overall.losses, found.overall.ties) == (3, 2, 1)
    overall = found.overall.differences[0]
    assert (overall.a, overall.b, overall.num_units) == (100 * 25 / 60, 100 * 23 / 60, 5)
    assert overall.difference == pytest.approx(-100 * 2 / 60)
    assert list(found.groups) == ['kind']  # subset has one value: the same as all
    first, second = found.groups['kind']
    assert (first.group, first.wins, first.losses, first.ties) == ('x', 1, 1, 1)
    assert (second.group, second.wins, second.losses, second.ties) == ('y', 2, 1, 0)
    assert [(own.metric, own.a, own.b) for own in first.differences] == [
        ('oIoU', 50.0, 100 * 16 / 30), ('mIoU', 50.0, pytest.approx(100 * 1.6 / 3)),
    ]  # fmt: skip
    assert [own.num_units for own in second.differences] == [3, 3]
    assert unique_metrics(A) == dict(oIoU='oIoU', mIoU='mIoU = gIoU', Pr='Pr')


def test_items_that_stand_out():
    found = compare(A, B, resamples=10)
    # gains: a#1 +0.4, then c#4 and e#6 with +0.1 (the lower first); of picture a only the first
    assert found.extremes(8) == dict(gains=[0, 3, 5], losses=[4, 1], both=[3, 5, 2, 0, 4])
    assert found.extremes(1) == dict(gains=[0], losses=[4], both=[3])
    same = compare(A, A, resamples=10)
    assert same.extremes(3) == dict(gains=[], losses=[], both=[3, 5, 0])


def test_by_items_says_that_pictures_are_not_independent():
    found = compare(A, B, by='item', resamples=10)
    assert found.overall.differences[0].num_units == 6
    assert any('items of one picture are taken as independent' in note for note in found.notes)
    with pytest.raises(ValueError, match=r"by must be one of \('image', 'item'\), but got 'pixel'"):
        compare(A, B, by='pixel')


def test_as_text():
    found = compare(A, B, ('old', 'new'), resamples=100)
    lines = summary(found)
    assert lines[:4] == [
        'A = old',
        'B = new',
        '6 items in 5 pictures; in percent, differences in percent points',
        'paired bootstrap over pictures, 100 resamples, seed 0, percentile intervals',
    ]
    assert lines[4].startswith('oIoU: no difference can be told; B - A = -3.33, 95 % interval -')
    assert lines[6] == 'item by item (iou): B is better on 3, worse on 2, equal on 1'
    text = as_text(found)
    assert 'mIoU = gIoU  41.67  38.33  -3.33' in text
    assert 'x     3      oIoU         50.00  53.33  +3.33' in text
    assert len({len(row) for table in tables(found) for row in [table.head, *table.rows]}) == 2


def test_verdicts():
    better = results([9, 9, 9, 9, 9, 9], ITEMS, 'xxxyyy')
    worse = results([1, 1, 1, 1, 1, 2], ITEMS, 'xxxyyy')
    for one, other, verdict in ((worse, better, 'B is better'), (better, worse, 'A is better')):
        line = summary(compare(one, other, resamples=50))[4]
        assert line.startswith(f'oIoU: {verdict}; B - A = ') and line.endswith('excludes 0')
    one_picture = [f'a#{number}' for number in range(6)]
    alone = compare(results([1] * 6, one_picture, 'x' * 6), results([2] * 6, one_picture, 'x' * 6))
    line = 'oIoU: B - A = +10.00; one picture is too few for an interval'
    assert summary(alone)[4] == line
    assert alone.to_dict()['overall']['differences'][0]['low'] is None
    assert math.isnan(alone.overall.differences[0].low)


def test_markdown_cannot_be_broken_by_names():
    rough = results([1, 2], ['a|b#1', '<b>#2'], 'x|')
    report = as_markdown(compare(rough, rough, ('`x`', '<script>'), resamples=5), 'a_b')
    assert report.startswith('# a\\_b\n\n- A = \\`x\\`\n- B = &lt;script&gt;\n')
    assert '| \\| | 1 | oIoU | 20.00 | 20.00 | +0.00 | none | none | 0 / 0 / 1 |' in report


def test_json_has_no_nan():
    numbers = json.loads(json.dumps(compare(A, B, resamples=20).to_dict(), allow_nan=False))
    assert (numbers['items'], numbers['images'], numbers['score']) == (6, 5, 'iou')
    assert numbers['settings'] == dict(by='image', resamples=20, seed=0, confidence=0.95, interval='percentile')
    assert numbers['overall']['differences'][1]['a'] == pytest.approx(100 * 2.5 / 6)
    assert [row['group'] for row in numbers['groups']['kind']] == ['x', 'y']


def test_too_many_groups_are_named():
    items = [f'{number}#1' for number in range(40)]
    many = SampleResults(items, np.arange(40), dict(iou=np.zeros(40)), dict(kind=items), dict(mIoU=('mean', 'iou')))
    found = compare(many, many, resamples=5)
    assert found.groups == {} and 'no table by kind: it has 40 values' in found.notes


def test_a_ratio_alone_has_no_score():
    own = dict(tp=np.array([1, 2]), all=np.array([2, 2]))
    rows = SampleResults(['a', 'b'], [0, 1], own, {}, dict(recall=('ratio', 'tp', 'all')))
    found = compare(rows, rows, resamples=5)
    assert (found.score, found.overall.wins) == (None, None)
    assert found.extremes(3) == dict(gains=[], losses=[], both=[])
    assert 'recall  75.00  75.00  +0.00' in as_text(found)


def scored(scores: dict, kinds: str = '', targets=None, aggregates=None) -> SampleResults:
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
    pairs = pair_rows(scored(dict(c=0.3, a=0.1, b=0.2), 'zxy'), scored(dict(b=0.5, c=0.6, a=0.4), 'yzx'))
    assert pairs.a.items == pairs.b.items == ['a', 'b', 'c']
    assert pairs.a.values['iou'].tolist() == [0.1, 0.2, 0.3]
    assert pairs.b.values['iou'].tolist() == [0.4, 0.5, 0.6]
    assert pairs.a.index.tolist() == [1, 2, 0]
    assert pairs.b.index.tolist() == [2, 0, 1]
    assert pairs.a.groups == dict(kind=['x', 'y', 'z'])
    assert pairs.notes == []


def test_other_items_are_refused_unless_the_common_ones_are_asked_for():
    first = scored(dict(a=0.1, b=0.2, c=0.3, d=0.4, e=0.5))
    second = scored(dict(e=0.9, f=0.8))
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
        pair_rows(scored(dict(x=1.0)), second, common=True)
    with pytest.raises(ValueError, match='no common item: both are empty'):
        pair_rows(scored({}), scored({}))


def test_other_ground_truth_is_refused():
    first = scored(dict(a=0.1, b=0.2), targets=[10, 20])
    with pytest.raises(ValueError, match=r"of 1 of 2 items differs: .* 'b' has 20 pixels for A and 21 for B"):
        pair_rows(first, scored(dict(a=0.1, b=0.2), targets=[10, 21]))
    assert pair_rows(first, scored(dict(b=0.2, a=0.1), targets=[20, 10])).a.items == ['a', 'b']


def test_groups_and_metrics_of_one_side_are_left_out_and_named():
    first = scored(dict(a=0.1), 'x', aggregates={'mIoU': ('mean', 'iou'), 'AP': ('mean', 'iou')})
    pairs = pair_rows(first, scored(dict(a=0.2), 'y'))
    assert (pairs.a.groups, pairs.b.aggregates) == ({}, dict(mIoU=('mean', 'iou')))
    assert pairs.notes == [
        'groups that are not the same in both are left out: kind',
        'metrics that are not the same in both are left out: AP',
    ]
    with pytest.raises(ValueError, match=r"no metric to compare: A has \['mIoU'\], B has \['AP'\]"):
        pair_rows(scored(dict(a=0.1)), scored(dict(a=0.1), aggregates=dict(AP=('mean', 'iou'))))
