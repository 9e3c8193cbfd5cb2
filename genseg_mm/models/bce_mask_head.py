"""Ablations of GenMask's head: cross-entropies in place of the velocity loss, and masks read off without a decoder."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from genseg_mm.functional.flow_matching import data_from_velocity
from genseg_mm.models.latent_codec import LatentCodec
from genseg_mm.models.latent_probe import LatentProbe
from genseg_mm.models.mask_head import GenerativeMaskHead, NoisyLatents
from genseg_mm.models.pretrained_parts import freeze
from genseg_mm.registry import MODELS

WAYS = ('decoder', 'linear')


@MODELS.register_module()
class BCEMaskHead(GenerativeMaskHead):
    """Binary cross-entropy of masks read off the one-step estimate of the clean latents (GenMask, ablations).

    The estimate is ``noisy - sigma * velocity``. The paper does not say at which sigma: here at the one that the law of
    timesteps draws, as for the velocity loss. Text-to-image samples keep the velocity loss.

    Args:
        through: What gives the log-odds of a pixel: the frozen VAE's 'decoder' ("pixel space"), or a 'linear' layer on
            each latent cell that is trained along and reads the masks at inference, too.
        scale: Log-odds per unit of the decoder's mean over RGB, which spans [-1, 1] (ours: the paper does not say how
            pixels become probabilities).
        loss_weight: Factor of ``loss_mask`` (ours: cross-entropies and squared errors differ in scale).
        **settings: Of :class:`GenerativeMaskHead`. The threshold is on the mean over RGB or, with the linear layer, on
            the probability.

    Raises:
        ValueError: If a setting is unknown or out of range.
    """

    def __init__(self, through: str = 'decoder', scale: float = 5.0, loss_weight: float = 1.0, **settings: Any) -> None:
        super().__init__(**settings)
        if through not in WAYS:
            raise ValueError(f'through must be one of {WAYS}, but got {through!r}')
        for name, value in (('scale', scale), ('loss_weight', loss_weight)):
            if not value > 0:
                raise ValueError(f'{name} must be positive, but got {value}')
        self.through, self.scale, self.loss_weight = through, scale, loss_weight
        self.probe: LatentProbe | None = None  # the linear layer needs the codec's sizes, see attach_codec

    def attach_codec(self, codec: LatentCodec) -> None:
        """Also makes the linear layer, for the latents of this codec."""
        super().attach_codec(codec)
        if self.through == 'linear':
            self.probe = LatentProbe(codec.latent_channels, codec.downsample)

    def loss(
        self, predicted: Tensor, noisy: NoisyLatents, is_mask: Tensor, masks: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross-entropy of the masks, (M, H, W), and the squared error of the images, see :class:`GenerativeMaskHead`.

        Raises:
            ValueError: If there are no masks.
        """
        losses = super().loss(predicted, noisy, is_mask)
        # DDP waits for the gradient of every parameter, whatever the batch holds.
        loss_mask = sum((own.sum() * 0 for own in self.parameters()), predicted.sum() * 0)
        if is_mask.any():
            estimate = data_from_velocity(noisy.latents, predicted.float(), noisy.sigma)[is_mask]  # (M, C, h, w)
            if masks is None or len(masks) != len(estimate):
                raise ValueError(
                    f'BCEMaskHead needs the mask of each of the {len(estimate)} mask samples, but got '
                    f'{"none" if masks is None else len(masks)}; train without cached latents of masks'
                )
            logits = self._logits(estimate)  # (M, H, W)
            error = F.binary_cross_entropy_with_logits(logits, (masks == 1).to(logits), reduction='none')
            loss_mask = loss_mask + error.flatten(1).mean(1).sum() / len(predicted)
        return dict(losses, loss_mask=self.loss_weight * loss_mask)

    def _logits(self, latents: Tensor) -> Tensor:
        if self.through == 'linear':
            return self._layer()(latents)[:, 0]
        return self.scale * self.decode(latents, clamp=False).mean(1)

    def latents_to_grey(self, latents: Tensor) -> Tensor:
        """As the velocity's head; with the linear layer 2 p - 1, p the probability."""
        return self._layer().grey(latents) if self.through == 'linear' else super().latents_to_grey(latents)

    def _layer(self) -> LatentProbe:
        if self.probe is None:
            raise ValueError(f'{type(self).__name__} has no linear layer: call attach_codec first, as GenMask does')
        return self.probe


@MODELS.register_module()
class ProbeMaskHead(GenerativeMaskHead):
    """Reads masks off the latents by a fitted linear map in place of the VAE's decoder; trained as its base.

    Args:
        weights: File of ``tools/fit_latent_probe.py``, see :class:`LatentProbe`. It is left out of checkpoints.
        **settings: Of :class:`GenerativeMaskHead`. The threshold is on the probe's grey picture.
    """

    def __init__(self, weights: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.probe = freeze(LatentProbe(weights=weights), has_source=True)

    def attach_codec(self, codec: LatentCodec) -> None:
        """Also checks that the probe was fitted on the latents of this codec."""
        super().attach_codec(codec)
        self.probe.check_codec(codec)

    def latents_to_grey(self, latents: Tensor) -> Tensor:
        """Masks as grey pictures in [-1, 1], (N, 1, H, W) float32, from clean latents (N, C, h, w)."""
        return self.probe.grey(latents)
