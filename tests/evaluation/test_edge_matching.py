"""Thinning, matching and counting of boundary pixels by hand."""

import importlib.util
import sys

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from genseg_mm import compiled_loops
from genseg_mm.evaluation import edge_loops
from genseg_mm.evaluation.edge_matching import count_edges, edge_thresholds, match_edges, thin_map


def as_map(drawing: str) -> np.ndarray:
    """Rows of '#' and '.' -> (H, W) bool."""
    return np.array([[pixel == '#' for pixel in row] for row in drawing.split()])


def drawn(mask: np.ndarray) -> str:
    return ' '.join(''.join('.#'[int(pixel)] for pixel in row) for row in mask)


def counts(predicted, *truths, reach=1.0, **kwargs):
    """(matched truth, truth, matched predicted, predicted) of maps of 0 and 1, within ``reach`` pixels."""
    predicted = np.asarray(predicted)
    share = reach / np.hypot(*predicted.shape)
    own = count_edges(predicted, np.stack(truths), [0.5], share, kwargs.pop('thin', False))
    return (int(own.matched_truth[0]), own.truth, int(own.matched_predicted[0]), int(own.predicted[0]))


def points(*columns, width=10):
    """A map of one row."""
    own = np.zeros((1, width), bool)
    own[0, list(columns)] = True
    return own


def test_thinning_by_hand():
    # A bar of three rows becomes its middle row; ends are shortened by the rules' first round only.
    assert drawn(thin_map(as_map('...... ###### ###### ###### ......'))) == ('...... ...... .####. ...... ......')
    assert drawn(thin_map(as_map('###'))) == '###'  # lines of one pixel stay, at the border too
    assert drawn(thin_map(as_map('#... .#.. ..#. ...#'))) == '#... .#.. ..#. ...#'
    assert drawn(thin_map(as_map('.... .##. .##. ....'))).count('#') == 1
    assert drawn(thin_map(as_map('#'))) == '#'
    assert drawn(thin_map(as_map('... ...'))) == '... ...'
    # A ring stays a ring.
    assert drawn(thin_map(as_map('##### #...# #...# #####'))) == '.###. #...# #...# .###.'


def test_thinning_is_that_of_the_reference_implementation():
    morphology = pytest.importorskip('skimage.morphology')
    generator = np.random.default_rng(0)
    for _ in range(60):
        size = generator.integers(1, 40, 2)
        mask = generator.random(size)
        for _ in range(generator.integers(0, 3)):  # larger and larger blobs
            mask = (mask + np.roll(mask, 1, 0) + np.roll(mask, 1, 1) + np.roll(mask, -1, 0)) / 4
        mask = mask > np.quantile(mask, generator.uniform(0.1, 0.9))
        np.testing.assert_array_equal(thin_map(mask), morphology.thin(mask))


def test_thresholds():
    np.testing.assert_allclose(edge_thresholds(5), [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6], atol=1e-15)
    np.testing.assert_allclose(edge_thresholds(99), np.arange(1, 100) / 100, atol=1e-15)
    np.testing.assert_allclose(edge_thresholds(1), [0.5])
    with pytest.raises(ValueError, match='num_thresholds must be positive, but got 0'):
        edge_thresholds(0)


def test_equal_maps_match_wholly():
    line = as_map('..#.. ..#.. ..#.. ..#..')
    assert counts(line, line) == (4, 4, 4, 4)


def test_a_shifted_line_matches_up_to_and_including_the_distance():
    line, shifted = as_map('..#... ' * 4), as_map('...#.. ' * 4)
    assert counts(line, shifted, reach=1.0) == (4, 4, 4, 4)
    assert counts(line, shifted, reach=0.999) == (0, 4, 0, 4)
    twice = as_map('....#. ' * 4)
    assert counts(line, twice, reach=1.99) == (0, 4, 0, 4)
    assert counts(line, twice, reach=2.0) == (4, 4, 4, 4)
    # Distances are Euclidean: 1 to the side and 1 down is farther than 1.4 and nearer than 1.5.
    corner, other = as_map('.... .#.. .... ....'), as_map('.... .... ..#. ....')
    assert counts(corner, other, reach=1.4) == (0, 1, 0, 1)
    assert counts(corner, other, reach=1.5) == (1, 1, 1, 1)


def test_distance_is_a_share_of_the_diagonal():
    predicted, truth = np.zeros((6, 8)), np.zeros((1, 6, 8))  # a diagonal of 10
    predicted[3, 3] = truth[0, 3, 5] = 1
    assert count_edges(predicted, truth, [0.5], 0.2, False).matched_truth.tolist() == [1]
    assert count_edges(predicted, truth, [0.5], 0.19, False).matched_truth.tolist() == [0]


def test_matching_is_one_to_one():
    assert counts(points(3, 5), points(4)) == (1, 1, 1, 2)
    assert counts(points(4), points(3, 5)) == (1, 2, 1, 1)
    assert counts(points(2, 3, 4, 5, 6), points(4), reach=2) == (1, 1, 1, 5)


def test_as_many_pairs_as_possible():
    # 2 could take 1 or 3, 4 only 3: both find a partner only if 2 takes 1. The same in a longer chain.
    assert counts(points(2, 4), points(1, 3)) == (2, 2, 2, 2)
    assert counts(points(2, 4, 6, 8), points(1, 3, 5, 7)) == (4, 4, 4, 4)
    assert counts(points(1, 3, 5), points(2, 4)) == (2, 2, 2, 3)


def test_of_two_the_nearer_one_is_matched():
    # The first annotator's pixel takes the prediction on it, not the one beside it, and the second's reaches only
    # that one as well: one prediction is matched by both and the other by none.
    assert counts(points(4, 5), points(4), points(3)) == (2, 2, 1, 2)
    assert counts(points(4, 5), points(4), points(6)) == (2, 2, 2, 2)


def test_annotators():
    # Recall adds annotators up; a prediction that two of them match counts once.
    assert counts(points(4), points(4), points(5), points(9)) == (2, 3, 1, 1)
    assert counts(points(0, 4, 8), points(0), points(8)) == (2, 2, 2, 3)


def test_empty_maps():
    assert counts(points(), points(1, 2)) == (0, 2, 0, 0)
    assert counts(points(1, 2), points()) == (0, 0, 0, 2)
    assert counts(points(), points()) == (0, 0, 0, 0)
    assert counts(points(3), points(), points(3)) == (1, 1, 1, 1)


def test_corners_and_borders():
    corners = as_map('#..# .... #..#')
    beside = as_map('.##. .... .##.')
    assert counts(corners, beside) == (4, 4, 4, 4)
    # Pixels at the end of one row and the start of the next are no neighbours.
    assert counts(as_map('...# ....'), as_map('.... #...'), reach=2) == (0, 1, 0, 1)


def test_thresholds_include_equal_values_and_any_order_works():
    strength = np.array([[0.2, 0.4, 0.6, 0.0]])
    truth = np.array([[[1, 1, 0, 0]]])
    own = count_edges(strength, truth, [0.4, 0.2, 0.6, 0.9, 0.61], 0.01, False)
    assert own.predicted.tolist() == [2, 3, 1, 0, 0]
    assert own.matched_truth.tolist() == own.matched_predicted.tolist() == [1, 2, 0, 0, 0]
    assert own.truth == 2


def test_predictions_are_thinned_but_not_the_truth():
    bar = as_map('........ ' * 3 + '######## ' * 3 + '........ ' * 3)
    line = as_map('........ ' * 4 + '######## ' + '........ ' * 4)
    assert counts(bar, line, thin=True, reach=1) == (6, 8, 6, 6)
    assert counts(line, bar, thin=True, reach=0.5) == (8, 24, 8, 8)
    assert counts(bar, line, thin=False, reach=0.5) == (8, 8, 8, 24)


@pytest.mark.parametrize('seed', range(8))
def test_pairs_are_as_many_as_an_exhaustive_assignment_finds(seed):
    generator = np.random.default_rng(seed)
    size, reach = (20, 24), [1.0, 1.5, 2.3, 4.4][seed % 4]
    predicted, truth = generator.random((2, *size)) < generator.uniform(0.05, 0.3, (2, 1, 1))
    places, targets = np.argwhere(predicted), np.argwhere(truth)
    distance = np.hypot(*(places[:, None] - targets).transpose(2, 0, 1))
    near = distance <= reach
    rows, columns = linear_sum_assignment(np.where(near, np.rint(100 * distance), 1e6))
    most = int(near[rows, columns].sum())
    assert counts(predicted, truth, reach=reach) == (most, len(targets), most, len(places))


def test_other_pixels_of_the_same_number_are_matched_anew():
    """A bar is thinned to four pixels in its middle, and of its upper row four are stronger."""
    strength = np.zeros((5, 6))
    strength[1:4], strength[1, 1:5] = 0.5, 0.9
    truth = np.zeros((1, 5, 6), bool)
    truth[0, 2, 1:5] = True
    own = count_edges(strength, truth, [0.4, 0.8], 0.5 / np.hypot(5, 6))
    assert own.predicted.tolist() == [4, 4]
    assert own.matched_truth.tolist() == own.matched_predicted.tolist() == [4, 0]


def test_thresholds_do_not_influence_one_another():
    """Each starts from the matching of the one before, which must not change what is found."""
    generator = np.random.default_rng(5)
    strength = generator.random((20, 24)) ** 2
    truths = generator.random((3, 20, 24)) < 0.1
    thresholds = np.array([0.5, 0.1, 0.3, 0.9, 0.05])
    together = count_edges(strength, truths, thresholds, 0.06)
    for place, threshold in enumerate(thresholds):
        alone = count_edges(strength, truths, [threshold], 0.06)
        assert [int(part[0]) for part in alone[1:]] == [int(part[place]) for part in together[1:]]


def test_equals_are_decided_by_the_pixels_alone():
    """A row of true pixels between two rows at the same distance: which of two is matched depends on no order."""
    strength = np.full((3, 60), 0.5)
    strength[1] = 0
    truth = np.zeros((1, 3, 60), bool)
    truth[0, 1] = True
    pixels = np.flatnonzero(strength)
    _, (chosen,) = match_edges([pixels], truth, 1.0)
    assert chosen.sum() == 60 and 10 < chosen[:60].sum() < 50  # some of either row
    order = np.random.default_rng(0).permutation(len(pixels))
    # Matched before: other pixels, and another part of the row.
    first = [np.flatnonzero(strength)[80:], np.flatnonzero(strength[0])]
    _, matched = match_edges([*first, pixels[order]], truth, 1.0)
    np.testing.assert_array_equal(matched[2], chosen[order])


def test_without_numba_the_counts_are_the_same(monkeypatch):
    generator = np.random.default_rng(1)
    strength, truths = generator.random((24, 30)) ** 2, generator.random((2, 24, 30)) < 0.12
    expected = count_edges(strength, truths, edge_thresholds(5), 0.07)
    monkeypatch.setitem(sys.modules, 'numba', None)

    def without_numba(module):
        spec = importlib.util.spec_from_file_location('plain_loops', module.__file__)
        plain = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(plain)
        return plain

    monkeypatch.setitem(sys.modules, compiled_loops.__name__, without_numba(compiled_loops))
    with pytest.warns(UserWarning, match="Numba is not installed: .* slower; pip install 'numba"):
        plain = without_numba(edge_loops)
    assert type(plain.match_maps).__name__ == 'function' != type(edge_loops.match_maps).__name__
    monkeypatch.setitem(sys.modules, edge_loops.__name__, plain)
    own = count_edges(strength, truths, edge_thresholds(5), 0.07)
    assert own.truth == expected.truth
    np.testing.assert_array_equal(own[1:], expected[1:])
    assert own.predicted[0] > own.matched_predicted[0] > 100


def test_which_pixels_match_is_as_good_as_an_exhaustive_assignment():
    generator = np.random.default_rng(3)
    predicted, truth = generator.random((14, 16)) < 0.5, generator.random((14, 16)) < 0.15
    places, targets = np.argwhere(predicted), np.argwhere(truth)
    distance = np.hypot(*(places[:, None] - targets).transpose(2, 0, 1))
    cost = np.where(distance <= 2.3, np.rint(100 * distance), 1e6)
    rows, columns = linear_sum_assignment(cost)
    best = int(cost[rows, columns][cost[rows, columns] < 1e6].sum())

    numbers, (matched,) = match_edges([np.flatnonzero(predicted)], truth[None], 2.3)
    number = int(numbers[0])
    own = cost[matched]
    rows, columns = linear_sum_assignment(own)
    assert number == matched.sum() == (cost[linear_sum_assignment(cost)] < 1e6).sum()
    assert int(own[rows, columns][own[rows, columns] < 1e6].sum()) == best


def test_bad_arguments():
    with pytest.raises(ValueError, match=r'annotators, 2, 3\) like strength.*got \(1, 3, 2\)'):
        count_edges(np.zeros((2, 3)), np.zeros((1, 3, 2)), [0.5])
    with pytest.raises(ValueError, match=r'at least one annotator, but got \(0, 2, 3\)'):
        count_edges(np.zeros((2, 3)), np.zeros((0, 2, 3)), [0.5])
    with pytest.raises(ValueError, match='max_distance must be positive, but got 0'):
        count_edges(np.zeros((2, 3)), np.zeros((1, 2, 3)), [0.5], 0)
