"""The laws of sigma against the numbers of the paper and against closed forms."""

import math

import pytest
import torch

from genseg_mm.models.timestep_samplers import JointTimesteps, LogitNormalTimesteps, LongTailTimesteps, UniformTimesteps

NUM = 200_000


def draw(sampler, num=NUM, seed=0):
    return sampler(num, generator=torch.Generator().manual_seed(seed))


def assert_law(sigma, cdf):
    """Kolmogorov-Smirnov test of draws against a continuous distribution function, at the level 0.1 %."""
    ordered = sigma.double().sort().values
    expected, num = cdf(ordered), len(ordered)
    steps = torch.arange(num + 1, dtype=torch.float64) / num
    distance = max((steps[1:] - expected).max().item(), (expected - steps[:-1]).max().item())
    assert distance * math.sqrt(num) < 1.95, (distance, num)


def long_tail_cdf(a):
    """P(sigma <= x) = P(s >= 1 - x) of the law cut to s <= 1."""
    return lambda x: 1 - (1 - x) ** 2 / ((1 - x) ** 2 + a * a) * (1 + a * a)


def logit_normal_cdf(x):
    return torch.special.ndtr(torch.logit(x))


@pytest.mark.parametrize('overflow', ['resample', 'truncate'])
@pytest.mark.parametrize('a', [0.05, 0.1, 0.5])
def test_resample_and_truncate_are_the_law_cut_at_pure_data(a, overflow):
    sigma = draw(LongTailTimesteps(a, overflow), seed=1)
    assert_law(sigma, long_tail_cdf(a))
    # The median of the cut law in closed form: s^2 (1 + a^2) / (s^2 + a^2) = 1/2.
    median = 1 - a / math.sqrt(1 + 2 * a * a)
    share = (sigma > median).double().mean().item()
    assert abs(share - 0.5) < 4 * math.sqrt(0.25 / NUM)
    with pytest.raises(AssertionError):
        assert_law(sigma, long_tail_cdf(1.02 * a))  # the test sees a width that is off by 2 %


def test_clip_puts_what_overflows_on_pure_data():
    sigma = draw(LongTailTimesteps(0.05, 'clip'), 1_000_000)
    overflowed = sigma == 0
    share = 0.05**2 / (1 + 0.05**2)  # P(s > 1) = 0.0025 / 1.0025 = 0.25 %
    assert abs(share - 0.0025) < 1e-5
    assert abs(overflowed.double().mean().item() - share) < 4 * math.sqrt(share / 1e6)
    assert_law(sigma[~overflowed], long_tail_cdf(0.05))


def test_the_law_is_its_inverse_transform():
    """s = a sqrt(u / (1 - u)) on the uniforms that the generator gives, worked out beside the class."""
    uniform = torch.rand(1000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = 1 - 0.05 * (uniform / (1 - uniform)).sqrt()
    assert (expected < 0).sum() == 2  # 0.25 % of 1000 are 2.5
    clipped = draw(LongTailTimesteps(0.05, 'clip'), 1000, seed=3)
    assert torch.allclose(clipped.double(), expected.clamp(min=0), atol=1e-7)
    resampled = draw(LongTailTimesteps(0.05), 1000, seed=3)
    assert resampled[expected >= 0].equal(clipped[expected >= 0])
    assert (resampled[expected < 0] > 0).all()


@pytest.mark.parametrize(
    ('sampler', 'cdf'),
    [
        (UniformTimesteps(), lambda x: x),
        (UniformTimesteps(0.2, 0.7), lambda x: (x - 0.2) / 0.5),
        (LogitNormalTimesteps(), logit_normal_cdf),
        (LogitNormalTimesteps(1.0, 0.5), lambda x: torch.special.ndtr((torch.logit(x) - 1) / 0.5)),
    ],
    ids=['uniform', 'uniform on a part', 'logit-normal', 'logit-normal, moved'],
)
def test_uniform_and_logit_normal_have_their_laws(sampler, cdf):
    assert_law(draw(sampler), cdf)


def test_logit_normal_peaks_at_one_half():
    # Density phi(logit x) / (x (1 - x)); at 1/2 it is 4 / sqrt(2 pi) = 1.596.
    sigma = draw(LogitNormalTimesteps(), 1_000_000)
    density = ((sigma - 0.5).abs() < 0.02).double().mean().item() / 0.04
    assert abs(density - 4 / math.sqrt(2 * math.pi)) < 0.03
    counts = torch.histc(sigma, bins=25, min=0, max=1)
    assert counts.argmax().item() == 12  # the bin from 0.48 to 0.52


def test_each_task_has_its_own_law_inside_one_batch():
    generator = torch.Generator().manual_seed(5)
    pick = torch.rand(100_000, generator=generator) < 0.3
    tasks = ['mask' if chosen else 'image' for chosen in pick.tolist()]
    sigma = JointTimesteps()(len(tasks), generator=generator, tasks=tasks)
    assert_law(sigma[pick], long_tail_cdf(0.05))
    assert_law(sigma[~pick], logit_normal_cdf)
    with pytest.raises(AssertionError):
        assert_law(sigma, logit_normal_cdf)


def test_the_joint_law_holds_with_a_generator_per_sample():
    """Training draws every sample from a generator of its own, seeded by its place."""
    tasks = ['mask', 'image'] * 2000
    own = [torch.Generator().manual_seed(1000 + seed) for seed in range(len(tasks))]
    sigma = JointTimesteps()(len(tasks), generator=own, tasks=tasks)
    assert_law(sigma[0::2], long_tail_cdf(0.05))
    assert_law(sigma[1::2], logit_normal_cdf)


@pytest.mark.parametrize('overflow', ['resample', 'clip', 'truncate'])
@pytest.mark.parametrize('a', [0.05, 0.1, 0.5])
def test_long_tail_has_its_closed_form_distribution(a, overflow):
    sigma = draw(LongTailTimesteps(a, overflow)).double()
    assert sigma.min() >= 0 and sigma.max() <= 1
    inside = 1 if overflow == 'clip' else 1 / (1 + a * a)  # P(s <= 1) of the untruncated law
    for s in (0.01, 0.05, 0.15, 0.4, 0.9):
        expected = (s * s / (s * s + a * a)) / inside
        share = (sigma > 1 - s).double().mean().item()
        assert abs(share - expected) < 4 * math.sqrt(0.25 / NUM), (s, share, expected)
    share_clean = (sigma == 0).double().mean().item()
    expected_clean = a * a / (1 + a * a) if overflow == 'clip' else 0
    assert abs(share_clean - expected_clean) < 4 * math.sqrt(0.25 / NUM)


def test_long_tail_has_the_numbers_of_the_paper():
    s = 1 - draw(LongTailTimesteps(0.05), 1_000_000).double()
    assert abs((s < 0.15).double().mean().item() - 0.9025) < 0.002
    counts = torch.histc(s, bins=200, min=0, max=0.2)
    peak = (counts.argmax().item() + 0.5) * 0.001
    assert abs(peak - 0.05 / math.sqrt(3)) < 0.006
    assert abs(counts.max().item() / 1e6 / 0.001 - 12.99) < 0.3


def test_logit_normal_and_uniform():
    sigma = draw(LogitNormalTimesteps())
    assert abs(sigma.mean().item() - 0.5) < 2e-3 and abs(sigma.std().item() - 0.2084) < 2e-3
    assert abs((sigma < 1 / (1 + math.e)).float().mean().item() - 0.1587) < 4e-3
    sigma = draw(UniformTimesteps())
    assert abs(sigma.mean().item() - 0.5) < 2e-3 and abs(sigma.var().item() - 1 / 12) < 2e-3
    assert (draw(UniformTimesteps(low=1.0), 10) == 1).all()


@pytest.mark.parametrize('sampler', [UniformTimesteps(), LogitNormalTimesteps(), LongTailTimesteps(), JointTimesteps()])
def test_a_generator_decides_the_draw(sampler):
    first, again, other = draw(sampler, 16), draw(sampler, 16), draw(sampler, 16, seed=1)
    assert first.dtype == torch.float32 and first.shape == (16,)
    assert first.tolist() == again.tolist() and first.tolist() != other.tolist()
    assert len(sampler(3)) == 3 and len(sampler(0)) == 0


def test_joint_draws_by_task_and_each_sample_from_its_own_generator():
    sampler = JointTimesteps(mask=dict(type='genseg_mm.LongTailTimesteps', a=0.01))
    tasks = ['mask', 'image'] * 5000
    sigma = sampler(10_000, generator=torch.Generator().manual_seed(0), tasks=tasks)
    assert abs(sigma[0::2].median().item() - 0.99) < 1e-3  # median of the law: s = a
    assert abs(sigma[1::2].median().item() - 0.5) < 0.02

    def own(seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    whole = sampler(4, generator=own(range(4)), tasks=tasks[:4])
    part = sampler(2, generator=own((2, 3)), tasks=tasks[2:4])
    assert whole[2:].tolist() == part.tolist()


def test_wrong_input_says_what_came():
    with pytest.raises(ValueError, match="a must be positive or 'auto', but got 0"):
        LongTailTimesteps(0)
    with pytest.raises(ValueError, match="'truncate', but got 'wrap'"):
        LongTailTimesteps(overflow='wrap')
    with pytest.raises(ValueError, match='scale must be positive'):
        LogitNormalTimesteps(scale=-1)
    with pytest.raises(ValueError, match='0 <= low <= high <= 1'):
        UniformTimesteps(0.5, 0.2)
    with pytest.raises(ValueError, match="but got 'video'"):
        JointTimesteps()(1, tasks=['video'])
    with pytest.raises(ValueError, match='expected 2 tasks'):
        JointTimesteps()(2, tasks=['mask'])


def test_share_of_draws_at_the_upper_end():
    """FlowRVS's law: half of the draws at the start of the path, the others uniform."""
    sigma = draw(UniformTimesteps(high_prob=0.5))
    at_start = sigma == 1
    assert abs(at_start.double().mean().item() - 0.5) < 4 * math.sqrt(0.25 / NUM)
    assert_law(sigma[~at_start], lambda x: x)
    assert draw(UniformTimesteps(low=0.2, high=0.6, high_prob=1), 5).tolist() == [pytest.approx(0.6)] * 5
    assert torch.equal(draw(UniformTimesteps()), draw(UniformTimesteps(high_prob=0.0)))
    with pytest.raises(ValueError, match=r'high_prob must lie in \[0, 1\], but got 1.5'):
        UniformTimesteps(high_prob=1.5)
