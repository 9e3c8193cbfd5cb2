"""Laws of the noise level sigma (GenMask, joint timestep sampling).

A sampler is called as ``sampler(num, generator=None)`` and returns sigma, float32, (num,), in [0, 1]; 1 is pure noise.
Draws are made on the CPU, so that they do not depend on the device of training.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from genseg_mm.registry import TASK_UTILS


def _uniform(num: int, generator: Generator | None) -> Tensor:
    # float64: the long-tail law divides by 1 - u, where float32 has only 2^24 values.
    return torch.rand(num, generator=generator, dtype=torch.float64)


@TASK_UTILS.register_module()
class UniformTimesteps:
    """sigma uniform on [low, high].

    Args:
        low: Smallest sigma, in [0, 1].
        high: Largest sigma, in [low, 1]; ``low=high=1`` trains on pure noise only.
        high_prob: Share of draws that are ``high`` itself, where a prediction in one step starts; 0.5 is FlowRVS's law
            (arXiv 2510.06139, boundary-biased sampling).

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, low: float = 0.0, high: float = 1.0, high_prob: float = 0.0) -> None:
        if not 0 <= low <= high <= 1:
            raise ValueError(f'expected 0 <= low <= high <= 1, but got low={low}, high={high}')
        if not 0 <= high_prob <= 1:
            raise ValueError(f'high_prob must lie in [0, 1], but got {high_prob}')
        self.low, self.high, self.high_prob = low, high, high_prob

    def __call__(self, num: int, generator: Generator | None = None) -> Tensor:
        """Draws ``num`` noise levels, (num,) float32."""
        sigma = (self.low + (self.high - self.low) * _uniform(num, generator)).float()
        if self.high_prob:
            sigma[_uniform(num, generator) < self.high_prob] = self.high
        return sigma


@TASK_UTILS.register_module()
class LogitNormalTimesteps:
    """sigma = sigmoid(n), n normal: GenMask's law for images (location 0, scale 1).

    Args:
        loc: Mean of the logit.
        scale: Standard deviation of the logit, positive.
    """

    def __init__(self, loc: float = 0.0, scale: float = 1.0) -> None:
        if scale <= 0:
            raise ValueError(f'scale must be positive, but got {scale}')
        self.loc, self.scale = loc, scale

    def __call__(self, num: int, generator: Generator | None = None) -> Tensor:
        """Draws ``num`` noise levels, (num,) float32."""
        normal = torch.randn(num, generator=generator, dtype=torch.float64)
        return torch.sigmoid(self.loc + self.scale * normal).float()


@TASK_UTILS.register_module()
class LongTailTimesteps:
    """GenMask's law for masks: long-tailed, at extremely high noise.

    The distance from pure noise s has density 2 a^2 s / (s^2 + a^2)^2, drawn by s = a sqrt(u / (1 - u)) with u uniform,
    and **sigma = 1 - s**: for a = 0.05, P(sigma > 0.85) = 0.900 and the density peaks at s = a / sqrt(3).

    Args:
        a: Width of the law, positive; the paper's best is 0.05. 'auto': before it starts, ``tools/train.py`` puts a
            number there from the codec and a sample of its masks (:mod:`genseg_mm.launch.auto_timesteps`).
        overflow: What happens to s > 1 (0.25 % for a = 0.05), which the paper leaves open: 'resample' draws
            again, 'clip' sets sigma to 0, 'truncate' inverts the law truncated to [0, 1] ('resample' and
            'truncate' are one law).
        leaked_share: For 'auto': share of draws, at most, so far from pure noise that masks show through it.

    Raises:
        ValueError: If a is not positive, leaked_share leaves (0, 1) or overflow is unknown.
    """

    def __init__(self, a: float | str = 0.05, overflow: str = 'resample', leaked_share: float = 0.01) -> None:
        if a != 'auto' and (isinstance(a, str) or a <= 0):
            raise ValueError(f"a must be positive or 'auto', but got {a!r}")
        if not 0 < leaked_share < 1:
            raise ValueError(f'leaked_share must lie in (0, 1), but got {leaked_share}')
        if overflow not in ('resample', 'clip', 'truncate'):
            raise ValueError(f"overflow must be 'resample', 'clip' or 'truncate', but got {overflow!r}")
        self.a, self.overflow = a, overflow

    def _distance(self, uniform: Tensor) -> Tensor:
        return self.a * (uniform / (1 - uniform)).sqrt()

    def __call__(self, num: int, generator: Generator | None = None) -> Tensor:
        """Draws ``num`` noise levels, (num,) float32.

        Raises:
            ValueError: If a is 'auto' still.
        """
        if self.a == 'auto':
            raise ValueError(
                "LongTailTimesteps has a='auto', which tools/train.py resolves before a training: elsewhere give the "
                'number that tools/analysis_tools/measure_mask_leak.py prints'
            )
        uniform = _uniform(num, generator)
        if self.overflow == 'truncate':
            uniform = uniform / (1 + self.a**2)  # P(s <= 1) = 1 / (1 + a^2)
        distance = self._distance(uniform)
        if self.overflow == 'resample':
            while (beyond := distance > 1).any():
                distance[beyond] = self._distance(_uniform(int(beyond.sum()), generator))
        return (1 - distance.clamp(max=1)).float()


@TASK_UTILS.register_module()
class JointTimesteps:
    """One law per task, chosen per sample inside one batch (GenMask's joint timestep sampling).

    ``__call__(num)`` without tasks draws from the mask law, so that a joint sampler also serves where only masks occur.

    Args:
        mask: Config of the law for samples of task 'mask'.
        image: Config of the law for samples of task 'image' (text-to-image).
    """

    def __init__(self, mask: dict | None = None, image: dict | None = None) -> None:
        self.samplers = {
            'mask': TASK_UTILS.build(mask or dict(type='genseg_mm.LongTailTimesteps')),
            'image': TASK_UTILS.build(image or dict(type='genseg_mm.LogitNormalTimesteps')),
        }

    def __call__(
        self, num: int, generator: Generator | Sequence[Generator] | None = None, tasks: Sequence[str] | None = None
    ) -> Tensor:
        """Draws one noise level per sample.

        Args:
            num: Number of samples.
            generator: One generator for all, or one per sample (then a draw does not depend on the rest of the batch).
            tasks: Task of each sample, 'mask' or 'image'; all 'mask' if None.

        Returns:
            sigma, float32, (num,).

        Raises:
            ValueError: If a task is unknown or the lengths disagree.
        """
        tasks = ['mask'] * num if tasks is None else list(tasks)
        if unknown := sorted(set(tasks) - set(self.samplers)):
            raise ValueError(f"task must be 'mask' or 'image', but got {unknown[0]!r}")
        if len(tasks) != num:
            raise ValueError(f'expected {num} tasks, one per sample, but got {len(tasks)}')
        if isinstance(generator, Sequence):
            if len(generator) != num:
                raise ValueError(f'expected {num} generators, but got {len(generator)}')
            pairs = zip(tasks, generator, strict=True)
            draws = [self.samplers[task](1, generator=own) for task, own in pairs]
            return torch.cat(draws) if draws else torch.zeros(0)
        sigma = torch.zeros(num)
        for task, sampler in self.samplers.items():
            chosen = torch.tensor([own == task for own in tasks], dtype=torch.bool)
            sigma[chosen] = sampler(int(chosen.sum()), generator=generator)
        return sigma
