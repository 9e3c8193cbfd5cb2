"""Text as a transformer takes it: its input projection for another prompt width, and the pooled vector."""

from collections.abc import Sequence

from torch import Tensor, nn

from genseg_mm.models.prompt_encoders import PromptEmbeddings


def replace_text_projection(transformer: nn.Module, names: Sequence[str], width: int) -> None:
    """Puts fresh layers in place of those that take the text states.

    The paper's model reads Qwen2.5-VL states (3584) where the released one reads umT5's (4096). The fresh layers are
    initialised as diffusers does, and they have to be trained.

    Args:
        transformer: diffusers model.
        names: Its layers that take the text states.
        width: Width D of the new states.
    """
    for name in names:
        old = transformer.get_submodule(name)
        tensor = next(old.parameters())
        new = _for_width(old, width).to(device=tensor.device, dtype=tensor.dtype)
        transformer.set_submodule(name, new)


def _for_width(old: nn.Module, width: int) -> nn.Module:
    from diffusers.models.embeddings import PixArtAlphaTextProjection
    from diffusers.models.normalization import RMSNorm

    if isinstance(old, nn.Linear):
        return nn.Linear(width, old.out_features, bias=old.bias is not None)
    if isinstance(old, RMSNorm):
        return RMSNorm(width, eps=old.eps)
    if isinstance(old, nn.Sequential):
        return nn.Sequential(*(_for_width(layer, width) for layer in old))
    assert isinstance(old, PixArtAlphaTextProjection), type(old)
    new = PixArtAlphaTextProjection(width, old.linear_1.out_features, old.linear_2.out_features)
    new.act_1 = old.act_1
    return new


def pooled_or_zeros(prompt: PromptEmbeddings, width: int) -> Tensor:
    """The prompts' pooled vectors, (N, width); zeros where the encoder has none.

    Raises:
        ValueError: If they have another width.
    """
    if prompt.pooled is None:
        return prompt.states.new_zeros(len(prompt.states), width)
    if prompt.pooled.shape[-1] != width:
        raise ValueError(
            f'the transformer expects pooled prompt vectors of width {width}, but got {prompt.pooled.shape[-1]}: use '
            'the encoder that it was trained with, or one without a pooled vector (zeros are passed then)'
        )
    return prompt.pooled
