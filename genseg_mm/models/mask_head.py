"""GenMask's head: which noise level, which target, and how a mask is read off a latent.

Training:   noisy = (1 - sigma) data + sigma noise;  loss = mean (DiT(noisy, sigma, text, image) - (noise - data))^2
Inference:  data = noise - DiT(noise, 1, text, image), one pass;  mask = decoded data, mean over RGB > threshold
With ``start='image'`` of GenMask the image's latents stand in the place of the noise of masks, in all of these.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Generator, Tensor

from genseg_mm.functional.flow_matching import euler_solve, noisy_latents, velocity_target
from genseg_mm.models.base import draw_noise
from genseg_mm.models.latent_codec import LatentCodec
from genseg_mm.registry import MODELS, TASK_UTILS

VelocityFn = Callable[[Tensor, Tensor], Tensor]


class NoisyLatents(NamedTuple):
    """Latents on the straight path from data to noise, and what is to be predicted of them.

    Attributes:
        latents: (1 - sigma) data + sigma noise, (N, C, h, w).
        sigma: Noise levels, (N,) float32; 1 is pure noise, or the image where the path starts from it.
        velocity: noise - data, (N, C, h, w).
    """

    latents: Tensor
    sigma: Tensor
    velocity: Tensor


@MODELS.register_module()
class GenerativeMaskHead(BaseModule):
    """Joint timestep sampling, velocity loss, one-step estimate (GenMask).

    The head has no parameters: the DiT itself generates the mask as a black-and-white RGB image. The paper's other
    losses are :class:`~genseg_mm.models.bce_mask_head.BCEMaskHead`.

    Args:
        timesteps: Config of the noise-level law; ``JointTimesteps`` has one law per task.
        threshold: Mask threshold on the mean over RGB, on the scale [0, 1] (not stated in the paper).
        num_steps: Euler steps at inference; the paper takes one.

    Raises:
        ValueError: If the threshold leaves (0, 1).
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
        self._codec: tuple[LatentCodec, ...] = ()  # in a tuple: it is the model's part, not the head's

    def attach_codec(self, codec: LatentCodec) -> None:
        """Makes known the codec whose latents the head reads; the model does it once.

        Raises:
            ValueError: If the head reads other latents.
        """
        self._codec = (codec,)

    def add_noise(
        self, data: Tensor, tasks: Sequence[str], generators: Sequence[Generator], images: Tensor | None = None
    ) -> NoisyLatents:
        """Clean latents moved to the noise levels that the law draws.

        Args:
            data: Clean latents of masks or images, (N, C, h, w).
            tasks: Task of each sample, 'mask' or 'image'.
            generators: One CPU generator per sample, for its noise level and its noise.
            images: Latents of the input images, (N, C, h, w), in the place of the noise of samples of task 'mask';
                None: all have noise.
        """
        sigma = self.sample_timesteps(tasks, generators).to(data.device)  # (N,)
        noise = draw_noise(data.shape[1:], generators).to(data)  # (N, C, h, w)
        if images is not None:
            is_mask = torch.tensor([task == 'mask' for task in tasks], device=data.device)
            noise = torch.where(is_mask[:, None, None, None], images.to(data), noise)
        return NoisyLatents(noisy_latents(data, noise, sigma), sigma, velocity_target(data, noise))

    def loss(
        self, predicted: Tensor, noisy: NoisyLatents, is_mask: Tensor, masks: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Mean squared error of the velocity.

        Both losses divide by the size N of the whole batch, so their sum is the plain mean over samples, a
        batch of any mix of tasks gives the same keys, and the mean over ranks is that of one large batch. An
        absent task gives 0, connected to the graph.

        Args:
            predicted: Velocity, (N, C, h, w).
            noisy: What it was predicted of.
            is_mask: Which samples are of task 'mask', (N,) bool; the others generate images.
            masks: Masks of those, (M, H, W) in {0, 1, 255}; None where their latents came from a cache. Not read.

        Returns:
            ``loss_mask`` and ``loss_image``, scalars.
        """
        error = F.mse_loss(predicted.float(), noisy.velocity, reduction='none').flatten(1).mean(1)  # (N,)
        return dict(loss_mask=(error * is_mask).sum() / len(error), loss_image=(error * ~is_mask).sum() / len(error))

    def predict(self, velocity_fn: VelocityFn, noise: Tensor) -> Tensor:
        """Clean latents from pure noise (or from the image's latents), (N, C, h, w).

        ``noise - velocity``, one forward pass by default.
        """
        return euler_solve(velocity_fn, noise, self.num_steps)

    def latents_to_grey(self, latents: Tensor) -> Tensor:
        """Masks as grey pictures in [-1, 1], (N, 1, H, W) float32, from clean latents (N, C, h, w)."""
        return self.decode(latents).mean(1, keepdim=True).clamp(-1, 1)

    def grey_to_logits(self, grey: Tensor, size: tuple[int, int]) -> Tensor:
        """Mask logits of one grey picture.

        Args:
            grey: In [-1, 1], (1, h, w).
            size: Height and width of the original image.

        Returns:
            The picture at this size minus the threshold, both on [-1, 1], (1, H, W): positive inside the mask.
        """
        if tuple(grey.shape[-2:]) != tuple(size):
            grey = F.interpolate(grey[None], size, mode='bilinear', align_corners=False)[0]
        return grey - (2 * self.threshold - 1)

    def decode(self, latents: Tensor, clamp: bool = True) -> Tensor:
        """RGB pictures of latents by the codec, see :meth:`LatentCodec.decode`.

        Raises:
            ValueError: If there is no codec yet.
        """
        if not self._codec:
            raise ValueError(f'{type(self).__name__} has no codec: call attach_codec first, as GenMask does')
        return self._codec[0].decode(latents, clamp=clamp)

    def sample_timesteps(self, tasks: Sequence[str], generators: Sequence[Generator]) -> Tensor:
        """One noise level per sample, (N,) float32, each from its own generator."""
        if hasattr(self.timesteps, 'samplers'):
            return self.timesteps(len(tasks), generator=generators, tasks=tasks)
        return torch.cat([self.timesteps(1, generator=own) for own in generators])

    @staticmethod
    def masks_to_images(masks: Tensor, checked: Sequence[bool] | None = None) -> Tensor:
        """Draws masks (N, H, W) in {0, 1, 255 = ignore} as images (N, 3, H, W): 1 white, all else -1 black.

        GenMask has no ignore in its loss; in training LISA, too, counts ignored pixels as background.

        Args:
            masks: The masks.
            checked: For each, whether its loader has seen that it is no black-and-white picture (a crop or padding may
                leave 255 and no 1 of a sound mask); default: none.

        Raises:
            ValueError: If one that is not checked holds 255 and no 1.
        """
        ambiguous = (masks == 255).flatten(1).any(1) & ~(masks == 1).flatten(1).any(1)
        for place in ambiguous.nonzero().flatten().tolist():
            if checked is None or not checked[place]:
                raise ValueError(
                    f'mask {place} of the batch: expected 1 on the object, but got 255 and no 1; 255 means ignored: a '
                    'black-and-white mask is read by LoadReferringMask(white=255), or written as 0 and 1'
                )
        white = (masks == 1).float() * 2 - 1
        return white[:, None].expand(-1, 3, -1, -1)
