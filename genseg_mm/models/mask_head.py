"""GenMask's head: which noise level, which target, and how a mask is read off a latent."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Generator, Tensor

from genseg_mm.functional.flow_matching import data_from_velocity, euler_solve, noisy_latents, velocity_target
from genseg_mm.models.base import freeze
from genseg_mm.models.latent_codec import LatentCodec
from genseg_mm.models.latent_probe import LatentProbe
from genseg_mm.models.seeded_noise import draw_noise
from genseg_mm.registry import MODELS, TASK_UTILS

VelocityFn = Callable[[Tensor, Tensor], Tensor]
MASK_LOSSES = ('velocity', 'pixel_bce', 'linear_bce')
DECODERS = ('vae', 'probe')


@MODELS.register_module()
class GenerativeMaskHead(BaseModule):
    """Joint timestep sampling, velocity loss, one-step estimate (GenMask).

    With the defaults the head has no parameters: the DiT itself generates the mask as a black-and-white RGB image. The
    other losses are the paper's ablations, binary cross-entropies of masks read off the one-step estimate of the
    clean latents, ``noisy - sigma * velocity``: through the frozen VAE decoder ('pixel_bce'), or by a linear layer on
    each latent cell that is trained along ('linear_bce'). The paper does not say at which sigma: here at the one that
    the law of timesteps draws, as for the velocity loss. Text-to-image samples keep the velocity loss.

    Args:
        timesteps: Config of the noise-level law; ``JointTimesteps`` has one law per task.
        threshold: Mask threshold on the mean over RGB, on the scale [0, 1] (not stated in the paper). For a probe
            the same of its grey picture, which after 'linear_bce' is the probability.
        num_steps: Euler steps at inference; the paper takes one.
        mask_loss: 'velocity' (the paper's), 'pixel_bce' or 'linear_bce'.
        decode: How a mask is read off latents: 'vae' (the paper's), or 'probe', a linear map in place of the VAE's
            decoder. Default: 'probe' after 'linear_bce', whose own layer it is, else 'vae'.
        probe: Arguments of :class:`LatentProbe`. decode='probe' needs its ``weights``; the layer of 'linear_bce' starts
            from them, or at random.
        bce_scale: Log-odds per unit of the mean over RGB, which spans [-1, 1], in 'pixel_bce' (ours; the
            paper does not say how pixels become probabilities).
        bce_threshold: Mean over RGB, on the scale [0, 1], where 'pixel_bce' has even odds (ours).
        mask_loss_weight: Factor of ``loss_mask`` (ours: 1; cross-entropies and squared errors differ in scale).

    Raises:
        ValueError: If an option is unknown, a threshold leaves (0, 1), or options do not fit each other.
    """

    def __init__(
        self,
        timesteps: dict | None = None,
        threshold: float = 0.5,
        num_steps: int = 1,
        mask_loss: str = 'velocity',
        decode: str | None = None,
        probe: dict | None = None,
        bce_scale: float = 5.0,
        bce_threshold: float = 0.5,
        mask_loss_weight: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, value in (('threshold', threshold), ('bce_threshold', bce_threshold)):
            if not 0 < value < 1:
                raise ValueError(f'{name} must lie in (0, 1), but got {value}')
        for name, value in (('bce_scale', bce_scale), ('mask_loss_weight', mask_loss_weight)):
            if not value > 0:
                raise ValueError(f'{name} must be positive, but got {value}')
        self.timesteps = TASK_UTILS.build(timesteps or dict(type='genseg_mm.JointTimesteps'))
        self.threshold, self.num_steps = threshold, num_steps
        self.bce_scale, self.bce_threshold = bce_scale, bce_threshold
        self.mask_loss, self.mask_loss_weight = mask_loss, mask_loss_weight
        self.decode = decode or ('probe' if mask_loss == 'linear_bce' else 'vae')
        self._check_options(probe)
        self.probe_config = None if probe is None else dict(probe)
        self.probe: LatentProbe | None = None  # needs the codec's sizes, see attach_codec

    def _check_options(self, probe: dict | None) -> None:
        for name, value, options in (('mask_loss', self.mask_loss, MASK_LOSSES), ('decode', self.decode, DECODERS)):
            if value not in options:
                raise ValueError(f'{name} must be one of {options}, but got {value!r}')
        trained = self.mask_loss == 'linear_bce'
        if trained and self.decode != 'probe':
            raise ValueError(
                "mask_loss='linear_bce' trains the layer that reads masks, which no VAE decoder has seen: "
                f"expected decode='probe', but got {self.decode!r}"
            )
        if self.decode == 'probe' and not trained and not (probe or {}).get('weights'):
            raise ValueError(
                "decode='probe' needs probe=dict(weights=...), a file of tools/fit_latent_probe.py, but got "
                f'probe={probe!r}'
            )
        if probe is not None and self.decode != 'probe':
            raise ValueError(f"probe is read with decode='probe' only, but got {self.decode!r}")

    def attach_codec(self, codec: LatentCodec) -> None:
        """Builds the probe, if the options ask for one, for the latents of this codec.

        Raises:
            ValueError: If the probe was made for other latents.
        """
        if self.decode != 'probe':
            return
        config = {'type': 'genseg_mm.LatentProbe', **(self.probe_config or {})}
        if config.get('weights') is None:
            config.setdefault('latent_channels', codec.latent_channels)
            config.setdefault('cell_size', codec.downsample)
        self.probe = MODELS.build(config)
        self.probe.check_codec(codec)
        if self.mask_loss == 'linear_bce':
            # Whatever it starts from, it is trained to give log-odds.
            self.probe.method = 'logistic'
        else:
            freeze(self.probe, has_source=True)

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
        masks: Tensor | None = None,
        codec: LatentCodec | None = None,
    ) -> dict[str, Tensor]:
        """Mean squared error of the velocity, or for masks a cross-entropy.

        Both losses divide by the size N of the whole batch, so their sum is the plain mean over samples, a
        batch of any mix of tasks gives the same keys, and the mean over ranks is that of one large batch. An
        absent task gives 0, connected to the graph (also to the parameters of the probe).

        Args:
            velocity_fn: ``(noisy (N, C, h, w), sigma (N,)) -> velocity (N, C, h, w)``.
            data: Clean latents of masks or images, (N, C, h, w).
            tasks: Task of each sample, 'mask' or 'image'.
            generators: One CPU generator per sample, for its noise level and its noise.
            masks: Masks of the M 'mask' samples, (M, H, W) in {0, 1, 255}; the cross-entropies need them.
            codec: Decodes the estimate in 'pixel_bce'.

        Returns:
            ``loss_mask`` and ``loss_image``, scalars.

        Raises:
            ValueError: If a cross-entropy lacks masks or codec.
        """
        sigma = self.sample_timesteps(tasks, generators).to(data.device)
        noise = draw_noise(data.shape[1:], generators).to(data)
        noisy = noisy_latents(data, noise, sigma)
        predicted = velocity_fn(noisy, sigma).float()
        error = F.mse_loss(predicted, velocity_target(data, noise), reduction='none')
        error = error.flatten(1).mean(1)  # (N,)
        is_mask = torch.tensor([task == 'mask' for task in tasks], device=data.device)
        loss_image = (error * ~is_mask).sum() / len(error)
        if self.mask_loss == 'velocity':
            loss_mask = (error * is_mask).sum() / len(error)
        else:
            # DDP waits for the gradient of every parameter, whatever the batch holds.
            loss_mask = sum((own.sum() * 0 for own in self.parameters()), predicted.sum() * 0)
            if is_mask.any():
                estimate = data_from_velocity(noisy, predicted, sigma)[is_mask]
                loss_mask = loss_mask + self._cross_entropy(estimate, masks, codec) / len(error)
        return dict(loss_mask=self.mask_loss_weight * loss_mask, loss_image=loss_image)

    def _cross_entropy(self, latents: Tensor, masks: Tensor | None, codec: LatentCodec | None) -> Tensor:
        """Sum over samples of the mean cross-entropy over pixels."""
        if masks is None or len(masks) != len(latents):
            raise ValueError(
                f'mask_loss={self.mask_loss!r} needs the mask of each of the {len(latents)} mask samples, but got '
                f'{"none" if masks is None else len(masks)}; train without cached latents of masks'
            )
        if self.mask_loss == 'linear_bce':
            if self.probe is None:
                raise ValueError('call attach_codec first: it builds the linear layer')
            logits = self.probe(latents)[:, 0]  # (M, H, W)
        else:
            if codec is None:
                raise ValueError("mask_loss='pixel_bce' needs the codec, but got none")
            grey = codec.decode(latents, clamp=False).mean(1)  # (M, H, W)
            logits = self.bce_scale * (grey - (2 * self.bce_threshold - 1))
        targets = (masks == 1).to(logits)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction='none')
        return losses.flatten(1).mean(1).sum()

    def predict(self, velocity_fn: VelocityFn, noise: Tensor) -> Tensor:
        """Clean latents from pure noise, (N, C, h, w); one forward pass by default."""
        return euler_solve(velocity_fn, noise, self.num_steps)

    def latents_to_grey(self, latents: Tensor, codec: LatentCodec) -> Tensor:
        """Masks as grey pictures in [-1, 1], (N, 1, H, W) float32, from clean latents (N, C, h, w).

        Decoded by the VAE and averaged over RGB, or read by the probe.

        Raises:
            ValueError: If there is no probe yet.
        """
        if self.decode == 'vae':
            return codec.decode(latents).mean(1, keepdim=True).clamp(-1, 1)
        if self.probe is None:
            raise ValueError('call attach_codec first: it builds the probe')
        return self.probe.grey(latents)

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
