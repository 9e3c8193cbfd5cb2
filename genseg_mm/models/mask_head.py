"""GenMask's head: which noise level, which target, and how a mask is read off a latent."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Generator, Tensor

from genseg_mm.functional.flow_matching import euler_solve, noisy_latents, velocity_target
from genseg_mm.models.seeded_noise import draw_noise
from genseg_mm.registry import MODELS, TASK_UTILS

VelocityFn = Callable[[Tensor, Tensor], Tensor]


@MODELS.register_module()
class GenerativeMaskHead(BaseModule):
    """Joint timestep sampling, velocity loss, one-step estimate (GenMask).

    The head has no parameters: the DiT itself generates the mask as a black-and-white RGB image.

    Args:
        timesteps: Config of the noise-level law; ``JointTimesteps`` has one law per task.
        threshold: Mask threshold on the mean over RGB, on the scale [0, 1] (not stated in the paper).
        num_steps: Euler steps at inference; the paper takes one.

    Raises:
        ValueError: If threshold leaves (0, 1).
    """

    def __init__(
        self,
        timesteps: dict | None = None,
        threshold: float = 0.5,
        num_steps: int = 1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not 0 < threshold < 1:
            raise ValueError(f'threshold must lie in (0, 1), but got {threshold}')
        self.timesteps = TASK_UTILS.build(timesteps or dict(type='genseg_mm.JointTimesteps'))
        self.threshold, self.num_steps = threshold, num_steps

    @staticmethod
    def masks_to_images(masks: Tensor) -> Tensor:
        """Draws masks (N, H, W) in {0, 1, 255 = ignore} as images (N, 3, H, W): 1 white, all else -1 black.

        GenMask has no ignore in its loss; in training LISA, too, counts ignored pixels as background.
        """
        white = (masks == 1).float() * 2 - 1
        return white[:, None].expand(-1, 3, -1, -1)

    def sample_timesteps(self, tasks: Sequence[str], generators: Sequence[Generator]) -> Tensor:
        """One noise level per sample, (N,) float32, each from its own generator."""
        if hasattr(self.timesteps, 'samplers'):
            return self.timesteps(len(tasks), generator=generators, tasks=tasks)
        return torch.cat([self.timesteps(1, generator=own) for own in generators])

    def loss(
        self,
        velocity_fn: VelocityFn,
        data: Tensor,
        tasks: Sequence[str],
        generators: Sequence[Generator],
    ) -> dict[str, Tensor]:
        """Mean squared error of the velocity.

        Both losses divide by the size N of the whole batch, so their sum is the plain mean over samples, a
        batch of any mix of tasks gives the same keys, and the mean over ranks is that of one large batch. An
        absent task gives 0, connected to the graph.

        Args:
            velocity_fn: ``(noisy (N, C, h, w), sigma (N,)) -> velocity (N, C, h, w)``.
            data: Clean latents of masks or images, (N, C, h, w).
            tasks: Task of each sample, 'mask' or 'image'.
            generators: One CPU generator per sample, for its noise level and its noise.

        Returns:
            ``loss_mask`` and ``loss_image``, scalars.
        """
        sigma = self.sample_timesteps(tasks, generators).to(data.device)
        noise = draw_noise(data.shape[1:], generators).to(data)
        predicted = velocity_fn(noisy_latents(data, noise, sigma), sigma)
        error = F.mse_loss(predicted.float(), velocity_target(data, noise), reduction='none')
        error = error.flatten(1).mean(1)  # (N,)
        is_mask = torch.tensor([task == 'mask' for task in tasks], device=data.device)
        return dict(
            loss_mask=(error * is_mask).sum() / len(error),
            loss_image=(error * ~is_mask).sum() / len(error),
        )

    def predict(self, velocity_fn: VelocityFn, noise: Tensor) -> Tensor:
        """Clean latents from pure noise, (N, C, h, w); one forward pass by default."""
        return euler_solve(velocity_fn, noise, self.num_steps)

    def decoded_to_logits(self, decoded: Tensor, size: tuple[int, int]) -> Tensor:
        """Mask logits of one decoded image.

        Args:
            decoded: RGB in about [-1, 1], (3, h, w).
            size: Height and width of the original image.

        Returns:
            Mean over RGB minus the threshold, both on [-1, 1], (1, H, W) float32: positive inside the mask.
        """
        grey = decoded.mean(0, keepdim=True)[None].clamp(-1, 1)  # (1, 1, h, w)
        if tuple(grey.shape[-2:]) != tuple(size):
            grey = F.interpolate(grey, size, mode='bilinear', align_corners=False)
        return grey[0] - (2 * self.threshold - 1)
