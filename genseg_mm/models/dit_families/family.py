"""What the adapters of all DiT families have in common, and the table of them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from genseg_mm.functional.flow_matching import guided_velocity
from genseg_mm.models.prompt_encoders import PromptEmbeddings

FAMILIES: dict[str, type['DiTFamily']] = {}


def register_family(*names: str) -> Callable[[type['DiTFamily']], type['DiTFamily']]:
    """Makes a :class:`DiTFamily` known to ``DiTBackbone(family=...)`` under these names; from any module.

    Raises:
        ValueError: If a name is taken.
    """

    def register(family: type['DiTFamily']) -> type['DiTFamily']:
        for name in names:
            if name in FAMILIES:
                raise ValueError(f'family {name!r} is there already, {FAMILIES[name].__name__}: choose another name')
            FAMILIES[name] = family
        return family

    return register


class DiTInputs(NamedTuple):
    """What a transformer predicts the velocity from; tensors in its dtype but for sigma.

    Attributes:
        noisy: Latents on the path, (N, C, H, W).
        sigma: Noise levels, (N,) float32; 1 is pure noise.
        prompt: N prompts, states (N, L, D).
        image: Latents of the input images, (N, C, H, W); for :meth:`TokenFamily.velocity_of_one_kind` None where no
            sample has one.
        has_image: Which of them count, (N,) bool.
        alike: True where all are known to have an image, False where none has one, without asking the tensor (which an
            exported graph cannot, and a GPU would be waited for); None: it has to be asked.
    """

    noisy: Tensor
    sigma: Tensor
    prompt: PromptEmbeddings
    image: Tensor | None
    has_image: Tensor
    alike: bool | None = None

    def select(self, chosen: Tensor) -> 'DiTInputs':
        """The samples at ``chosen``, (N,) bool."""
        image = None if self.image is None else self.image[chosen]
        return DiTInputs(
            self.noisy[chosen], self.sigma[chosen], self.prompt.select(chosen), image, self.has_image[chosen]
        )


class DiTFamily:
    """How one kind of transformer takes image latents, timestep and text.

    Attributes:
        transformer_class: Name of the diffusers class.
        needs_fixed_length_text: The transformer has no text mask, so prompts are padded to one length, with zeros.
        text_projection: Layers that take the text states.
        text_width_key: The config's key of the states' width.
        takes_images: Whether samples may have an image beside their noisy latents.
    """

    transformer_class: str
    needs_fixed_length_text = False
    text_projection: tuple[str, ...]
    text_width_key: str
    takes_images = True

    def prepare(self, transformer: nn.Module) -> list[str]:
        """Checks a released model, widens its input where images come as channels, freezes what can get no gradient.

        Returns:
            Names of the layers that are not the released ones any more.

        Raises:
            ValueError: If the model is of a kind that takes its image, time or guidance another way.
        """
        raise NotImplementedError

    def start_from_scratch(self, transformer: nn.Module) -> None:
        """Corrects what diffusers' own initialisation leaves untrainable; nothing by default."""

    def latent_channels(self, transformer: nn.Module) -> int:
        """Channels C of the latents."""
        return transformer.config.out_channels

    def patch_size(self, transformer: nn.Module) -> tuple[int, int]:
        """Height and width in latent cells of one token."""
        return (transformer.config.patch_size,) * 2

    def output_layer(self, transformer: nn.Module) -> nn.Linear:
        """The last layer."""
        return transformer.proj_out

    def velocity(self, transformer: nn.Module, inputs: DiTInputs) -> Tensor:
        """Velocity of noisy latents, noise - data, (N, C, H, W)."""
        raise NotImplementedError

    def guided_velocity(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance, see :func:`~genseg_mm.functional.flow_matching.guided_velocity`."""
        return guided_velocity(conditional, unconditional, scale)


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
        return prompt.states.new_zeros(prompt.states.shape[0], width)
    if prompt.pooled.shape[-1] != width:
        raise ValueError(
            f'the transformer expects pooled prompt vectors of width {width}, but got {prompt.pooled.shape[-1]}: use '
            'the encoder that it was trained with, or one without a pooled vector (zeros are passed then)'
        )
    return prompt.pooled
