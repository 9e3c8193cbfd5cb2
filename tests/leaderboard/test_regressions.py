"""The regression gate: moved, missing, new, not comparable."""

import math

import pytest
from made_records import make_record

from genseg_mm.leaderboard import count_numbers, format_regressions, regressions


def kinds(new, old, tolerance=0.05):
    return [(one.kind, one.metric, one.fails) for one in regressions(new, old, tolerance)]


@pytest.mark.parametrize(
    ('before', 'now', 'moved'),
    [
        (50.0, 50.0, False),
        (50.0, 50.05, False),
        (50.0, 49.95, False),
        (50.0, 50.06, True),
        (50.0, 49.94, True),
        (math.nan, math.nan, False),
        (math.nan, 50.0, True),
        (50.0, math.nan, True),
    ],
)
def test_a_number_may_move_by_its_tolerance_either_way(before, now, moved):
    old, new = make_record(metrics={'mIoU': before}), make_record(metrics={'mIoU': now})
    assert kinds([new], [old]) == ([('moved', 'mIoU', True)] if moved else [])


def test_the_tolerance_of_the_new_benchmark_counts():
    old = make_record(metrics={'mIoU': 50.0}, tolerance=9.0)
    assert kinds([make_record(metrics={'mIoU': 50.5}, tolerance=0.4)], [old]) == [('moved', 'mIoU', True)]
    assert kinds([make_record(metrics={'mIoU': 50.5}, tolerance=0.6)], [old]) == []
    assert kinds([make_record(metrics={'mIoU': 50.5}, tolerance=0)], [old])[0][0] == 'moved'
    assert kinds([make_record(metrics={'mIoU': 50.5})], [old], tolerance=1) == []
    with pytest.raises(ValueError, match='a tolerance >= 0, but got -1'):
        regressions([], [], -1)


def test_missing_and_new_numbers():
    old = [make_record('a', 'dram', {'mIoU': 1.0, 'AP': 2.0}), make_record('a', 'pidray', {'mIoU': 3.0})]
    new = [make_record('a', 'dram', {'mIoU': 1.0, 'AR': 4.0}), make_record('b', 'dram', {'mIoU': 5.0})]
    found = regressions(new, old, 0.05)
    assert [(one.kind, one.model, one.benchmark, one.metric, one.old, one.new) for one in found] == [
        ('missing', 'a', 'dram', 'AP', 2.0, None),
        ('new', 'a', 'dram', 'AR', None, 4.0),
        ('missing', 'a', 'pidray', 'mIoU', 3.0, None),
        ('new', 'b', 'dram', 'mIoU', None, 5.0),
    ]
    assert [one.fails for one in found] == [True, False, True, False]


def test_other_data_and_other_protocols_are_told_from_moved_numbers():
    old = make_record(metrics={'mIoU': 50.0})
    other = make_record(metrics={'mIoU': 50.0}, fingerprint='f2', items=6)
    assert kinds([other], [old]) == [('other data', 'mIoU', True)]
    other = make_record(metrics={'mIoU': 60.0}, protocol='the deepest pixel', fingerprint='f2')
    assert kinds([other], [old]) == [('other protocol', 'mIoU', True)]
    [one] = regressions([other], [old], 0.05)
    assert one.differs == ("protocol 'the deepest pixel', was 'one random pixel, seed 0'", 'data: 718 items, were 718')


def test_the_text_says_what_else_differs():
    old = make_record(metrics={'mIoU': 50.0, 'AP': 1.0, 'gone': 7.0})
    new = make_record(
        metrics={'mIoU': 49.5, 'AP': math.nan, 'more': 2.0},
        checkpoint_sha256='cd' * 32,
        packages=dict(torch='2.13.1', numpy='2.2.6'),
    )
    found = regressions([new], [old], 0.05)
    assert format_regressions(found, count_numbers([old])).splitlines() == [
        'Moved by more than the tolerance:',
        '  ours / dram / mIoU: 50 -> 49.5 (-0.5, tolerance 0.05) [differs: checkpoint; torch 2.13.1, was 2.13.0]',
        '  ours / dram / AP: 1 -> undefined (undefined on one side, tolerance 0.05) [differs: checkpoint; torch '
        '2.13.1, was 2.13.0]',
        'Missing, was there before:',
        '  ours / dram / gone: was 7',
        'New, not there before (does not fail):',
        '  ours / dram / more: 2',
        'FAILED: 3 of 3 numbers are not as they were',
    ]
    assert format_regressions([], 7) == 'passed: all 7 numbers are as they were'
    assert format_regressions(found[3:], 3).splitlines()[-1] == 'passed: all 3 numbers are as they were'
