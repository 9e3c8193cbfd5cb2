"""What the adapters of all families have in common."""

from torch import Tensor, nn

from genseg_mm.models.prompt_encoders import PromptEmbeddings


class DiTFamily:
    """How one kind of transformer takes image latents, timestep and text; one file per kind.

    Attributes:
        transformer_class: Name of the diffusers class.
        needs_fixed_length_text: The transformer has no text mask, so prompts are padded to one length, with zeros.
        text_projection: Layers that take the text states.
        text_width_key: The config's key of the states' width.
    """

    transformer_class: str
    needs_fixed_length_text = False
    text_projection: tuple[str, ...]
    text_width_key: str

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

    def velocity(
        self,
        transformer: nn.Module,
        noisy: Tensor,
        sigma: Tensor,
        prompt: PromptEmbeddings,
        image_latents: Tensor,
        has_image: Tensor,
    ) -> Tensor:
        """Velocity of noisy latents, see :meth:`DiTBackbone.forward`.

        Args:
            transformer: The diffusers model.
            noisy: (N, C, H, W) in the transformer's dtype.
            sigma: (N,) float32.
            prompt: N prompts, states in the transformer's dtype.
            image_latents: (N, C, H, W) in the transformer's dtype.
            has_image: Which of them count, (N,) bool.

        Returns:
            noise - data, (N, C, H, W).
        """
        raise NotImplementedError
