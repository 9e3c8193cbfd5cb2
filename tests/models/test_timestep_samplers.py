"""The laws of sigma against the numbers of the paper and against closed forms."""

import math

import pytest
import torch

from genseg_mm.models.timestep_samplers import (
    JointTimesteps,
    LogitNormalTimesteps,
    LongTailTimesteps,
    UniformTimesteps,
)

NUM = 200_000


def draw(sampler, num=NUM, seed=0):
    return sampler(num, generator=torch.Generator().manual_seed(seed))


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
    with pytest.raises(ValueError, match='a must be positive, but got 0'):
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
