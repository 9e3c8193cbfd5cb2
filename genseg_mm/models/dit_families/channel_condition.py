"""Image latents as extra input channels, for families without a token route."""

import torch
from torch import Tensor, nn


def with_image_channels(noisy: Tensor, image_latents: Tensor, has_image: Tensor) -> Tensor:
    """Noisy latents and the image's side by side, (N, 2C, H, W); zero where a sample has no image."""
    condition = torch.where(has_image[:, None, None, None], image_latents, 0)
    return torch.cat([noisy, condition.to(noisy.dtype)], 1)


def widen_input(transformer: nn.Module, layer: str, family: str) -> list[str]:
    """Widens the patch embedding of a released model from C to 2C channels; the new ones start at zero.

    So the model starts as the released one, whatever the image. A transformer of 2C channels is left as it is.

    Args:
        transformer: diffusers model whose config has ``in_channels`` and ``out_channels`` = C.
        layer: Name of the convolution that embeds the patches.
        family: Name for the message.

    Returns:
        Names of the new layers: ``[layer]``, or nothing.

    Raises:
        ValueError: If the transformer has neither C nor 2C input channels.
    """
    config = transformer.config
    if config.in_channels == 2 * config.out_channels:
        return []
    if config.in_channels != config.out_channels:
        raise ValueError(
            f'family {family} expects in_channels = out_channels (a released model, widened here) or twice that, '
            f'but got in_channels={config.in_channels}, out_channels={config.out_channels}'
        )
    old = transformer.get_submodule(layer)
    new = nn.Conv2d(
        2 * old.in_channels,
        old.out_channels,
        old.kernel_size,
        old.stride,
        bias=old.bias is not None,
        dtype=old.weight.dtype,
        device=old.weight.device,
    )
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
        if old.bias is not None:
            new.bias.copy_(old.bias)
    transformer.set_submodule(layer, new)
    transformer.register_to_config(in_channels=2 * config.in_channels)
    return [layer]
