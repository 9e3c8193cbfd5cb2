"""DiT families that take the image's latents as extra tokens or frames."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genseg_mm.models.dit_families.family import DiTFamily, DiTInputs, pooled_or_zeros, register_family
from genseg_mm.models.prompt_encoders import PromptEmbeddings


class TokenFamily(DiTFamily):
    """A family whose sequences are longer for samples with an image, so that the two kinds run apart.

    A mixed batch takes two forwards, a pure one takes one. Where parameters are sharded (FSDP), every rank must run
    the same number: give all ranks the same mix of tasks, as ``RatioInfiniteSampler`` does.
    """

    def velocity(self, transformer: nn.Module, inputs: DiTInputs) -> Tensor:
        """See :meth:`DiTFamily.velocity`."""
        has_image = inputs.has_image
        if inputs.alike or (inputs.alike is None and has_image.all()):
            return self.velocity_of_one_kind(transformer, inputs)
        if inputs.alike is False or not has_image.any():
            return self.velocity_of_one_kind(transformer, inputs._replace(image=None))
        with_image, without = inputs.select(has_image), inputs.select(~has_image)._replace(image=None)
        parts = [self.velocity_of_one_kind(transformer, part) for part in (with_image, without)]
        result = torch.empty_like(inputs.noisy, dtype=parts[0].dtype)
        result[has_image], result[~has_image] = parts
        return result

    def velocity_of_one_kind(self, transformer: nn.Module, inputs: DiTInputs) -> Tensor:
        """As :meth:`velocity`, for samples that all have an image, or that have none (``image`` is None)."""
        raise NotImplementedError


@register_family('wan')
class WanFamily(TokenFamily):
    """Wan 2.1 and 2.2 (arXiv 2503.20314): the image latent is frame 0 at timestep 0, the noisy latent frame 1.

    GenMask's model. The paper concatenates the image's latent with the noise and gives it the time embedding of t = 0;
    a second frame with a timestep per token does so without a new parameter (the frame is our reading). Samples without
    an image are single frames, so a mixed batch takes two forwards. Wan has no text mask: padding is zeroed and its
    length is fixed. Wan2.1 1.3B and 14B have 16 latent channels, Wan2.2 5B has 48 (and an autoencoder of 16x). Of
    Wan2.2 14B's two transformers, take the one of high noise: masks live near sigma = 1.
    """

    transformer_class = 'WanTransformer3DModel'
    needs_fixed_length_text = True
    text_projection = ('condition_embedder.text_embedder',)
    text_width_key = 'text_dim'

    def prepare(self, transformer: nn.Module) -> list[str]:
        """Checks that it is a text-to-video model; it is used as it is."""
        config = transformer.config
        out_channels = config.out_channels or config.in_channels
        if config.in_channels != out_channels or config.image_dim is not None:
            raise ValueError(
                'family wan expects a text-to-video model (in_channels = out_channels, no image_dim), but got '
                f'in_channels={config.in_channels}, out_channels={out_channels}, image_dim={config.image_dim}: '
                'image-to-video models take their image another way; use a T2V or TI2V model'
            )
        if config.patch_size[0] != 1:
            raise ValueError(f'family wan expects patches of one frame, but got patch_size={tuple(config.patch_size)}')
        return []

    def latent_channels(self, transformer: nn.Module) -> int:
        """Channels C of the latents."""
        return transformer.config.in_channels

    def patch_size(self, transformer: nn.Module) -> tuple[int, int]:
        """Height and width in latent cells of one token."""
        return tuple(transformer.config.patch_size[1:])

    def velocity_of_one_kind(self, transformer: nn.Module, inputs: DiTInputs) -> Tensor:
        """See :meth:`TokenFamily.velocity_of_one_kind`."""
        noisy, sigma, prompt, image = inputs[:4]
        timestep, frames = sigma * 1000, noisy[:, :, None]  # (N,), (N, C, 1, H, W)
        if image is not None:
            frames = torch.stack([image, noisy], 2)  # (N, C, 2, H, W)
            rows, columns = self.patch_size(transformer)
            tokens = (noisy.shape[-2] // rows) * (noisy.shape[-1] // columns)
            timestep = timestep[:, None].repeat_interleave(tokens, 1)  # (N, tokens)
            timestep = torch.cat([torch.zeros_like(timestep), timestep], 1)  # (N, 2 tokens)
        return transformer(
            hidden_states=frames, timestep=timestep, encoder_hidden_states=prompt.states, return_dict=False
        )[0][:, :, -1]


@register_family('qwen_image', 'qwen_image_edit')
class QwenImageFamily(TokenFamily):
    """Qwen-Image(-Edit) (arXiv 2508.02324): the image's latents are tokens behind the noisy ones; text mask supported.

    With ``zero_cond_t`` in the config (Qwen-Image-Edit-2511) the image's tokens get timestep 0 of their own; it has no
    parameter, so ``transformer=dict(..., zero_cond_t=True)`` turns it on for the other releases. The text
    stream of the last block leads nowhere: it is frozen, or distributed training would wait for its gradient.
    """

    transformer_class = 'QwenImageTransformer2DModel'
    text_projection = ('txt_norm', 'txt_in')
    text_width_key = 'joint_attention_dim'

    def prepare(self, transformer: nn.Module) -> list[str]:
        """Checks the packing and freezes what gets no gradient."""
        config = transformer.config
        channels = transformer.out_channels
        if config.patch_size != 2 or config.in_channels != 4 * channels:
            raise ValueError(
                'family qwen_image expects latents packed 2 x 2 (patch_size=2, in_channels = 4 out_channels), but got '
                f'patch_size={config.patch_size}, in_channels={config.in_channels}, out_channels={channels}'
            )
        unfit = [key for key in ('guidance_embeds', 'use_additional_t_cond', 'use_layer3d_rope') if config.get(key)]
        if unfit:
            raise ValueError(
                f'family qwen_image expects Qwen-Image or Qwen-Image-Edit, but got {", ".join(unfit)}=True (as in '
                'Qwen-Image-Layered)'
            )
        last = transformer.transformer_blocks[-1]
        for unused in (last.attn.to_add_out, last.txt_mlp):
            unused.requires_grad_(False)
        return []

    def latent_channels(self, transformer: nn.Module) -> int:
        """Channels C of the latents."""
        return transformer.out_channels

    def patch_size(self, transformer: nn.Module) -> tuple[int, int]:
        """Height and width in latent cells of one token."""
        return 2, 2

    def velocity_of_one_kind(self, transformer: nn.Module, inputs: DiTInputs) -> Tensor:
        """See :meth:`TokenFamily.velocity_of_one_kind`."""
        noisy, sigma, prompt, image = inputs[:4]
        height, width = noisy.shape[-2:]
        images = [noisy] if image is None else [noisy, image]
        tokens = torch.cat([pack(latents) for latents in images], 1)  # (N, L or 2L, 4C)
        timestep = torch.cat([sigma, sigma * 0]) if transformer.zero_cond_t else sigma
        with float32_timestep(transformer.time_text_embed, timestep):
            velocity = transformer(
                hidden_states=tokens,
                encoder_hidden_states=prompt.states,
                encoder_hidden_states_mask=prompt.mask,
                timestep=sigma,
                img_shapes=[[(1, height // 2, width // 2)] * len(images)] * noisy.shape[0],
                return_dict=False,
            )[0]
        return unpack(velocity[:, : tokens.shape[1] // len(images)], height, width)

    def guided_velocity(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Guidance that leaves each token's velocity as long as it is under the prompt, as the pipelines do."""
        guided = pack(super().guided_velocity(conditional, unconditional, scale))  # (N, L, 4C)
        length = pack(conditional).norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        return unpack(guided * length, *conditional.shape[-2:])


@register_family('flux', 'flux_kontext')
class FluxFamily(TokenFamily):
    """FLUX.1 and Kontext (arXiv 2506.15742): the image's latents are tokens whose first position is 1; no text mask.

    Guidance-distilled releases (dev, Kontext) take a guidance scale as an input: ``embedded_guidance``, 1 for
    training and masks; pictures of dev want about 3.5.
    """

    transformer_class = 'FluxTransformer2DModel'
    needs_fixed_length_text = True
    text_projection = ('context_embedder',)
    text_width_key = 'joint_attention_dim'
    embedded_guidance = 1.0

    def prepare(self, transformer: nn.Module) -> list[str]:
        """Checks the packing; the released model is used as it is."""
        config = transformer.config
        channels = transformer.out_channels
        if config.patch_size != 1 or config.in_channels != channels or channels % 4:
            raise ValueError(
                'family flux expects latents packed 2 x 2 (patch_size=1, in_channels = out_channels = 4 C), but got '
                f'patch_size={config.patch_size}, in_channels={config.in_channels}, out_channels={channels}: the Fill, '
                'Canny and Depth models take their image another way; use FLUX.1 dev, schnell or Kontext'
            )
        return []

    def latent_channels(self, transformer: nn.Module) -> int:
        """Channels C of the latents."""
        return transformer.out_channels // 4

    def patch_size(self, transformer: nn.Module) -> tuple[int, int]:
        """Height and width in latent cells of one token."""
        return 2, 2

    def velocity_of_one_kind(self, transformer: nn.Module, inputs: DiTInputs) -> Tensor:
        """See :meth:`TokenFamily.velocity_of_one_kind`."""
        noisy, sigma, prompt, image = inputs[:4]
        height, width = noisy.shape[-2:]
        ids = _token_ids(height // 2, width // 2).to(noisy.device)  # (L, 3)
        images = [noisy] if image is None else [noisy, image]
        tokens = torch.cat([pack(latents) for latents in images], 1)  # (N, L or 2L, 4C)
        offsets = ids.new_tensor([[0, 0, 0], [1, 0, 0]])[: len(images), None]
        guidance = None
        if transformer.config.guidance_embeds:
            guidance = torch.full_like(sigma, self.embedded_guidance)
        with float32_timestep(transformer.time_text_embed, sigma * 1000):
            velocity = transformer(
                hidden_states=tokens,
                encoder_hidden_states=prompt.states,
                pooled_projections=pooled_or_zeros(prompt, transformer.config.pooled_projection_dim),
                timestep=sigma,
                guidance=guidance,
                img_ids=(ids + offsets).flatten(0, 1),
                txt_ids=ids.new_zeros(prompt.states.shape[1], 3),
                return_dict=False,
            )[0]
        return unpack(velocity[:, : ids.shape[0]], height, width)


def _token_ids(rows: int, columns: int) -> Tensor:
    """(image, row, column) of every token, (rows columns, 3) float32; image 0."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing='ij')
    return torch.stack([torch.zeros_like(row), row, column], -1).reshape(-1, 3).float()


IMAGE_TIME = 10  # where FLUX.2's pipelines put their first reference image on the axis of time


@register_family('flux2')
class Flux2Family(TokenFamily):
    """FLUX.2 klein and dev: the image's latents are tokens at time 10, as those of an edited image; no text mask.

    A cell of the latents is a token: :class:`LatentCodec` packs its autoencoder's 32 channels 2 x 2, as the pipelines
    do (128 channels, 16 pixels per cell). The released models read 512 prompt tokens with the states at padding, so
    their prompt encoder masks nothing. The image's tokens have the noise level of the others. Dev is
    guidance-distilled and takes a guidance scale as an input, ``embedded_guidance`` (1 for training and masks; pictures
    want about 4); klein takes none.
    """

    transformer_class = 'Flux2Transformer2DModel'
    needs_fixed_length_text = True
    text_projection = ('context_embedder',)
    text_width_key = 'joint_attention_dim'
    embedded_guidance = 1.0

    def prepare(self, transformer: nn.Module) -> list[str]:
        """Checks the patches; the released model is used as it is."""
        config = transformer.config
        if config.patch_size != 1 or config.in_channels != transformer.out_channels:
            raise ValueError(
                'family flux2 expects one cell per token (patch_size=1, in_channels = out_channels), but got '
                f'patch_size={config.patch_size}, in_channels={config.in_channels}, '
                f'out_channels={transformer.out_channels}; use FLUX.2 klein or dev'
            )
        return []

    def latent_channels(self, transformer: nn.Module) -> int:
        """Channels C of the latents."""
        return transformer.out_channels

    def velocity_of_one_kind(self, transformer: nn.Module, inputs: DiTInputs) -> Tensor:
        """See :meth:`TokenFamily.velocity_of_one_kind`."""
        noisy, sigma, prompt, image = inputs[:4]
        height, width = noisy.shape[-2:]
        ids = F.pad(_token_ids(height, width), (0, 1)).to(noisy.device)  # (L, 4): time, row, column, place in the text
        images = [noisy] if image is None else [noisy, image]
        tokens = torch.cat([latents.flatten(2).mT for latents in images], 1)  # (N, L or 2L, C)
        offsets = ids.new_tensor([[0, 0, 0, 0], [IMAGE_TIME, 0, 0, 0]])[: len(images), None]
        text_ids = F.pad(torch.arange(prompt.states.shape[1]).to(ids)[:, None], (3, 0))
        guidance, embedded = None, [sigma * 1000]
        if transformer.config.guidance_embeds:
            guidance = torch.full_like(sigma, self.embedded_guidance)
            embedded.append(guidance * 1000)
        with float32_timestep(transformer.time_guidance_embed.time_proj, *embedded):
            velocity = transformer(
                hidden_states=tokens,
                encoder_hidden_states=prompt.states,
                timestep=sigma,
                guidance=guidance,
                img_ids=(ids + offsets).flatten(0, 1),
                txt_ids=text_ids,
                return_dict=False,
            )[0]
        return velocity[:, : ids.shape[0]].mT.unflatten(2, (height, width))


@register_family('z_image')
class ZImageFamily(TokenFamily):
    """Z-Image (arXiv 2511.22699): its time runs from noise (0) to data (1) and its output is data - noise.

    Text of any length. The image's latents are extra tokens at time 1, in the call that diffusers' omni pipeline makes
    (image, prompt, target). Samples without an image are the plain text-to-image call.
    """

    transformer_class = 'ZImageTransformer2DModel'
    text_projection = ('cap_embedder',)
    text_width_key = 'cap_feat_dim'

    def prepare(self, transformer: nn.Module) -> list[str]:
        """Checks the patches; the released model is used as it is."""
        if 1 not in transformer.config.all_f_patch_size:
            raise ValueError(
                f'family z_image expects patches of one frame, but got {transformer.config.all_f_patch_size}'
            )
        return []

    def start_from_scratch(self, transformer: nn.Module) -> None:
        """Draws the padding tokens, which diffusers leaves at zero.

        There the normalisation behind them has a slope of 1 / sqrt(eps), and their gradient drowns all others.
        """
        for token in (transformer.x_pad_token, transformer.cap_pad_token):
            nn.init.normal_(token, std=0.02)

    def latent_channels(self, transformer: nn.Module) -> int:
        """Channels C of the latents."""
        return transformer.config.in_channels

    def patch_size(self, transformer: nn.Module) -> tuple[int, int]:
        """Height and width in latent cells of one token."""
        config = transformer.config
        return (config.all_patch_size[list(config.all_f_patch_size).index(1)],) * 2

    def output_layer(self, transformer: nn.Module) -> nn.Linear:
        """The last layer."""
        return transformer.all_final_layer[f'{self.patch_size(transformer)[0]}-1'].linear

    def velocity_of_one_kind(self, transformer: nn.Module, inputs: DiTInputs) -> Tensor:
        """See :meth:`TokenFamily.velocity_of_one_kind`."""
        noisy, sigma, prompt, image = inputs[:4]
        frames = list(noisy[:, :, None])  # N of (C, 1, H, W)
        texts = _real_tokens(prompt)
        arguments = dict(x=frames, cap_feats=texts)
        if image is not None:
            arguments = dict(
                x=[list(pair) for pair in zip(image[:, :, None], frames, strict=True)],
                cap_feats=[[text[:0], text] for text in texts],
                image_noise_mask=[[0, 1]] * noisy.shape[0],
                siglip_feats=[None] * noisy.shape[0],
            )
        backward = transformer(
            t=1 - sigma, patch_size=self.patch_size(transformer)[0], f_patch_size=1, return_dict=False, **arguments
        )[0]
        return -torch.stack(backward)[:, :, 0]


def _real_tokens(prompt: PromptEmbeddings) -> list[Tensor]:
    """Each prompt's tokens without padding, (L_i, D); one zero token for a prompt that has none."""
    tokens = [states[mask] for states, mask in zip(prompt.states, prompt.mask, strict=True)]
    return [own if len(own) else own.new_zeros(1, own.shape[-1]) for own in tokens]


def pack(latents: Tensor) -> Tensor:
    """Latents (N, C, H, W) as tokens of 2 x 2 cells, (N, H/2 W/2, 4C), channels first (as Flux and Qwen-Image)."""
    num, channels, height, width = latents.shape
    cells = latents.view(num, channels, height // 2, 2, width // 2, 2)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(num, -1, 4 * channels)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Inverse of :func:`pack`: (N, H/2 W/2, 4C) -> (N, C, H, W)."""
    num, _, packed = tokens.shape
    cells = tokens.view(num, height // 2, width // 2, packed // 4, 2, 2)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(num, packed // 4, height, width)


@contextmanager
def float32_timestep(embedder: nn.Module, *values: Tensor) -> Iterator[None]:
    """Hands the timestep to its embedder in float32.

    Flux and Qwen-Image cast it to the dtype of their hidden states first, which in bfloat16 cannot tell 0.998 from
    0.996.

    Args:
        embedder: Module whose first argument is the timestep.
        values: What it should get, float32; one for each of its calls.
    """
    calls = iter(values)
    handle = embedder.register_forward_pre_hook(lambda _, args: (next(calls), *args[1:]), prepend=True)
    try:
        yield
    finally:
        handle.remove()
