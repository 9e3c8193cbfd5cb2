"""The paired bootstrap: cases whose whole distribution is known, coverage, symmetry."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
import scipy.stats

from genseg_mm.comparing.comparison import paired_bootstrap, shared_aggregates
from genseg_mm.evaluation import SampleResults

MEAN = dict(mIoU=('mean', 'iou'))
RATIO = dict(oIoU=('ratio', 'intersection', 'union'))


def rows(iou=None, intersection=None, union=None, items=None, **kwargs) -> SampleResults:
    values = dict(iou=iou, intersection=intersection, union=union)
    values = {key: np.asarray(own) for key, own in values.items() if own is not None}
    number = len(next(iter(values.values())))
    aggregates = {**(MEAN if iou is not None else {}), **(RATIO if union is not None else {})}
    return SampleResults(
        items or [f'{row}.jpg#1' for row in range(number)], np.arange(number), values, {}, aggregates,
        **kwargs,
    )  # fmt: skip


def test_three_items_have_27_resamples_of_a_mean():
    a, b = rows(iou=[0.2, 0.5, 0.4]), rows(iou=[0.2, 0.8, 1.0])  # gains 0, 0.3, 0.6
    means = [sum(drawn) / 3 for drawn in product([0.0, 0.3, 0.6], repeat=3)]
    assert Counter(round(10 * mean) for mean in means) == {0: 1, 1: 3, 2: 6, 3: 7, 4: 6, 5: 3, 6: 1}
    (found,) = paired_bootstrap(a, b, resamples=20_000)
    assert (found.a, found.b) == pytest.approx((100 * 1.1 / 3, 100 * 2 / 3))
    assert found.difference == pytest.approx(30)
    # 2.5 % lies in the 1/27 of all zeros below, and in that of all 0.6 above.
    assert (found.low, found.high) == (0.0, pytest.approx(60))
    assert found.share_above == pytest.approx(26 / 27, abs=4 * math.sqrt(26 / 27**2 / 20_000))
    assert (found.share_below, found.num_items, found.num_units) == (0.0, 3, 3)
    (found,) = paired_bootstrap(a, b, resamples=20_000, confidence=0.8)  # 10 % is in 1/27 + 3/27
    assert (found.low, found.high) == (pytest.approx(10), pytest.approx(50))


def test_three_items_have_27_resamples_of_a_ratio():
    a = rows(intersection=[1, 2, 0], union=[10, 4, 6])
    b = rows(intersection=[5, 2, 3], union=[10, 8, 6])
    exact = []
    for drawn in product(range(3), repeat=3):
        parts = [
            100 * sum(own.values['intersection'][i] for i in drawn) / sum(own.values['union'][i] for i in drawn)
            for own in (a, b)
        ]  # fmt: skip
        exact.append(parts[1] - parts[0])
    (found,) = paired_bootstrap(a, b, resamples=50_000)
    assert found.difference == pytest.approx(100 * (10 / 24 - 3 / 20))
    assert found.low == pytest.approx(np.quantile(exact, 0.025, method='inverted_cdf'))
    assert found.high == pytest.approx(np.quantile(exact, 0.975, method='inverted_cdf'))
    share = np.mean(np.array(exact) > 0)
    assert found.share_above == pytest.approx(share, abs=0.01)
    assert found.share_below == pytest.approx(np.mean(np.array(exact) < 0), abs=0.01)


def test_ties_are_neither_above_nor_below():
    """Gains 0.1, 0.2 and -0.3: of 27 resamples, 6 add up to 0, though not to the last bit."""
    a, b = rows(iou=[0.0, 0.0, 0.3]), rows(iou=[0.1, 0.2, 0.0])
    (found,) = paired_bootstrap(a, b, resamples=20_000)
    assert found.share_above == pytest.approx(11 / 27, abs=0.014)
    assert found.share_below == pytest.approx(10 / 27, abs=0.014)


def test_pictures_are_drawn_whole():
    items = ['a#1', 'a#2', 'a#3', 'b#1']
    a, b = rows(iou=[0.0] * 4, items=items), rows(iou=[0.4, 0.4, 0.4, 0.0], items=items)
    (found,) = paired_bootstrap(a, b, units=a.pictures, resamples=20_000)
    # aa: 0.4, bb: 0, ab and ba: 3 * 0.4 / 4
    assert found.difference == pytest.approx(30)
    assert (found.low, found.high, found.num_units) == (0.0, pytest.approx(40), 2)
    assert found.share_above == pytest.approx(0.75, abs=0.02)


def noisy_pair(number=200, seed=0) -> tuple[SampleResults, SampleResults]:
    rng = np.random.default_rng(seed)
    union = rng.integers(50, 900, (2, number))
    intersection = (union * rng.beta(4, 1, (2, number))).astype(int)
    items = [f'{row // 3}.jpg#{row}' for row in range(number)]
    return tuple(
        rows(i / u, i, u, items) for i, u in zip(intersection, union, strict=True)
    )  # fmt: skip


@pytest.mark.parametrize('interval', ['percentile', 'bca'])
def test_swapping_turns_everything_round(interval):
    a, b = noisy_pair()
    forth = paired_bootstrap(a, b, units=a.pictures, interval=interval, resamples=2000)
    back = paired_bootstrap(b, a, units=a.pictures, interval=interval, resamples=2000)
    assert [own.metric for own in forth] == ['mIoU', 'oIoU']
    for one, other in zip(forth, back, strict=True):
        assert (one.a, one.b, one.difference) == (other.b, other.a, -other.difference)
        assert one.low == pytest.approx(-other.high, abs=1e-12)
        assert one.high == pytest.approx(-other.low, abs=1e-12)
        assert (one.share_above, one.share_below) == (other.share_below, other.share_above)


@pytest.mark.parametrize('interval', ['percentile', 'bca'])
def test_equal_models_have_no_width(interval):
    a, _ = noisy_pair()
    for found in paired_bootstrap(a, a, interval=interval, resamples=500):
        assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)
        assert (found.share_above, found.share_below) == (0.0, 0.0)


def test_a_constant_gain_has_no_width():
    a, b = rows(iou=[0.25, 0.5, 0.0]), rows(iou=[0.5, 0.75, 0.25])
    for interval in ('percentile', 'bca'):
        (found,) = paired_bootstrap(a, b, interval=interval, resamples=100)
        assert (found.low, found.difference, found.high, found.share_above) == (25, 25, 25, 1.0)


def test_seed_decides_and_chunks_do_not(monkeypatch):
    a, b = noisy_pair()
    one, same, other = (paired_bootstrap(a, b, resamples=300, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    monkeypatch.setattr('genseg_mm.comparing.comparison._CELLS', 700)  # 3 resamples at a time
    chunked = paired_bootstrap(a, b, resamples=300, seed=1)
    for whole, part in zip(one, chunked, strict=True):
        assert (part.low, part.high) == pytest.approx((whole.low, whole.high), abs=1e-12)


def test_width_is_that_of_the_standard_error():
    a, b = noisy_pair(2000)
    gains = 100 * (b.values['iou'] - a.values['iou'])
    error = gains.std() / math.sqrt(2000)
    found = paired_bootstrap(a, b, ['mIoU'], resamples=4000)[0]
    assert found.low == pytest.approx(gains.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(gains.mean() + 1.96 * error, abs=0.15 * error)


@pytest.mark.parametrize('interval', ['percentile', 'bca'])
def test_95_percent_intervals_hold_the_truth_about_95_times_in_100(interval):
    rng, held = np.random.default_rng(5), 0
    for trial in range(200):
        a = rows(iou=np.zeros(60))
        b = rows(iou=rng.normal(0.02, 0.1, 60))
        (found,) = paired_bootstrap(a, b, resamples=400, seed=trial, interval=interval)
        held += found.low <= 2.0 <= found.high
    assert 180 <= held <= 198  # 190 +- 2.6 standard deviations, less what the small sample costs


def test_bca_follows_the_skew():
    rng = np.random.default_rng(0)
    a, b = rows(iou=np.zeros(50)), rows(iou=rng.exponential(0.1, 50))
    plain = paired_bootstrap(a, b, resamples=8000)[0]
    bca = paired_bootstrap(a, b, resamples=8000, interval='bca')[0]
    assert bca.low > plain.low and bca.high > plain.high  # towards the long tail
    other = scipy.stats.bootstrap(
        (100 * b.values['iou'],), np.mean, n_resamples=8000, method='BCa', random_state=1
    ).confidence_interval  # fmt: skip
    assert (bca.low, bca.high) == pytest.approx((other.low, other.high), abs=0.15)


def test_bca_of_a_symmetric_gain_is_the_percentile_interval():
    """Gains -20 and 20: the mean is -20, 0, 0 or 20. Half of the zeros lie below the estimate, so there is no bias."""
    a, b = rows(iou=[0.5, 0.5]), rows(iou=[0.3, 0.7])
    for interval in ('percentile', 'bca'):
        (found,) = paired_bootstrap(a, b, resamples=8000, interval=interval)
        assert (found.low, found.difference, found.high) == pytest.approx((-20, 0, 20), abs=1e-9)


def test_undefined_resamples_are_counted():
    a = rows(intersection=[0, 1], union=[0, 2])
    b = rows(intersection=[0, 2], union=[0, 2])
    (found,) = paired_bootstrap(a, b, resamples=8000)
    assert found.num_undefined == pytest.approx(2000, abs=160)  # the first row twice
    assert (found.difference, found.low, found.high, found.share_above) == (50, 50, 50, 1.0)
    (nothing,) = paired_bootstrap(a, b, rows=np.array([0]))
    assert math.isnan(nothing.a) and math.isnan(nothing.low)


def test_one_unit_has_no_interval():
    a, b = rows(iou=[0.5, 0.5], items=['a#1', 'a#2']), rows(iou=[0.5, 1.0], items=['a#1', 'a#2'])
    (found,) = paired_bootstrap(a, b, units=a.pictures)
    assert (found.difference, found.num_units) == (25, 1)
    assert math.isnan(found.low) and math.isnan(found.share_above)
    (nothing,) = paired_bootstrap(a, b, rows=np.array([], int))
    assert math.isnan(nothing.difference) and nothing.num_items == 0


def test_wrong_arguments():
    a, b = noisy_pair(9)
    with pytest.raises(ValueError, match='use pair_rows first'):
        paired_bootstrap(a, b.take(range(8)))
    for kwargs, message in (
        (dict(resamples=0), 'resamples must be at least 1, but got 0'),
        (dict(confidence=95), r'confidence must lie in \(0, 1\), e.g. 0.95, but got 95'),
        (dict(interval='t'), "interval must be one of .* but got 't'"),
    ):
        with pytest.raises(ValueError, match=message):
            paired_bootstrap(a, b, **kwargs)
    other = SampleResults(b.items, b.index, b.values, {}, dict(mIoU=('mean', 'iou')))
    assert shared_aggregates(a, other) == ['mIoU']
