"""What is exported: a picture in, a colour map or the logits of a mask out, and what the file says of itself."""

from typing import Any

import torch
from torch import Tensor, nn

from genseg_mm import __version__
from genseg_mm.checkpoint import weights_digest
from genseg_mm.functional.color_maps import normalize_colors
from genseg_mm.functional.point_prompting import prompt_settings
from genseg_mm.inferencers import GenSegInferencer
from genseg_mm.models import Gen2Seg, GenMask
from genseg_mm.models.base import draw_noise, seeded_generator
from genseg_mm.models.genmask import latent_size
from genseg_mm.models.prompt_encoders import PromptEmbeddings
from genseg_mm.network_sizes import network_resize_of


class ExportedGraph(nn.Module):
    """A model as a function of tensors alone.

    Attributes:
        inputs: Names of the inputs; the first is the picture, ``image`` (N, 3, H, W) float32 RGB in [0, 255].
        output: Name of the output.
        span: Width of the output's range, which differences are measured by.
        multiples: (height, width) in pixels of which a picture's sides are multiples.
    """

    inputs: tuple[str, ...] = ('image',)
    output: str
    span: float

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        preprocessor = model.data_preprocessor
        normalizes = getattr(preprocessor, '_enable_normalize', False)
        for name, default in (('mean', 0.0), ('std', 1.0)):
            value = getattr(preprocessor, name) if normalizes else torch.full((3, 1, 1), default)
            self.register_buffer(name, value.detach().clone().float(), persistent=False)
        self.takes_bgr = not getattr(preprocessor, '_channel_conversion', True)
        self.multiples = multiples_of(model)

    def normalized(self, image: Tensor) -> Tensor:
        """What the model's own preprocessor makes of a picture."""
        image = image.flip(1) if self.takes_bgr else image
        return (image - self.mean) / self.std

    def examples(self, num: int, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Inputs for a trial: noise of N pictures of (height, width)."""
        generator = torch.Generator().manual_seed(0)
        return (torch.rand(num, 3, *size, generator=generator) * 255,)

    def describe(self) -> dict[str, Any]:
        """What a user of the file has to know, for its metadata."""
        resize = dict(network_resize_of(self.model) or {})
        return dict(
            producer=f'genseg_mm {__version__}',
            model=type(self.model).__name__,
            weights=f'sha256 of names and values: {weights_digest(self.model)}',
            image=dict(
                layout='NCHW', dtype='float32', channels='RGB', range=[0, 255],
                normalization='in the file',
                multiples=list(self.multiples),
                resize={key: list(own) if isinstance(own, tuple) else own for key, own in resize.items()},
                resize_method='antialiased ' + str(resize.get('method', 'bilinear')),
            ),
        )  # fmt: skip


class ColorMapGraph(ExportedGraph):
    """A Gen2Seg without prompts and tiles: the colour map at the size of its input, stretched per picture to [0, 255].

    Args:
        model: Any Gen2Seg.
    """

    output = 'color_map'
    span = 255.0

    def __init__(self, model: Gen2Seg) -> None:
        super().__init__(model)
        # Extremes of the batch only shift and scale a map, which the stretch undoes.
        self.scale = 'none' if model.normalize in ('batch', 'image') else model.normalize

    def forward(self, image: Tensor) -> Tensor:
        """Pictures (N, 3, H, W), RGB in [0, 255], to colour maps, (N, 3, H, W) in [0, 255]."""
        colors = normalize_colors(self.model.raw_maps(self.normalized(image)), self.scale, self.model.bias)
        low, high = colors.amin((1, 2, 3), keepdim=True), colors.amax((1, 2, 3), keepdim=True)
        unit = (colors - low) / (high - low).clamp(min=1e-5)
        return (unit if self.model.gamma == 1.0 else unit.pow(self.model.gamma)) * 255

    def describe(self) -> dict[str, Any]:
        """See :meth:`ExportedGraph.describe`."""
        meaning = (
            'one flat colour for each instance, RGB in [0, 255], stretched over each picture; masks are the pixels '
            'whose colour is like that around a clicked point (prompting)'
        )
        output = dict(name=self.output, layout='NCHW', dtype='float32', range=[0, 255], meaning=meaning)
        return dict(super().describe(), output=output, prompting=prompt_settings(**self.model.prompting))


class MaskGraph(ExportedGraph):
    """A one-step GenMask: the logits of the mask that one sentence means.

    Args:
        model: A GenMask.
        text: The sentence, whose embedding becomes a part of the file. None: the embedding is an input,
            ``prompt_states`` (N, L, D) with ``prompt_mask`` (N, L) and, where the encoder gives it, ``prompt_pooled``
            (N, P), as ``model.prompt_encoder([text])`` gives them.
        size: (height, width) of the pictures; fixed, since the noise that the path of masks starts from is drawn for
            it, and diffusers' positions of many families are computed for it. None with ``start='image'``: any.

    Raises:
        ValueError: If the prompts depend on the picture, or the noise has no size.
    """

    output = 'logits'
    span = 2.0

    def __init__(self, model: GenMask, text: str | None, size: tuple[int, int] | None = None) -> None:
        super().__init__(model)
        if getattr(model.prompt_encoder, 'looks_at_images', False):
            raise ValueError(
                f'{type(model.prompt_encoder).__name__} reads the picture along with the text, so that no prompt can '
                'be fixed: expected a GenMask whose prompt encoder reads texts alone'
            )
        self.text = text
        with torch.no_grad():
            prompt = model.prompt_encoder(['' if text is None else text], None)
        for name, value in prompt._asdict().items():
            self.register_buffer(name, None if value is None else value.detach().clone(), persistent=False)
        self.has_free_length = text is None and not model.backbone.family.needs_fixed_length_text
        names = [name for name, value in prompt._asdict().items() if value is not None]
        self.inputs = ('image', *(f'prompt_{name}' for name in names)) if text is None else ('image',)
        noise = None
        if model.start == 'noise':
            if size is None:
                raise ValueError('GenMask draws noise for the size of a picture: expected a size, but got none')
            cells = latent_size(size, model.codec.downsample, model.backbone.patch_size)
            noise = draw_noise((model.backbone.latent_channels, *cells), [seeded_generator(model.seed, 0)])
        self.register_buffer('noise', noise, persistent=False)

    def forward(
        self,
        image: Tensor,
        prompt_states: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        prompt_pooled: Tensor | None = None,
    ) -> Tensor:
        """Pictures (N, 3, H, W), RGB in [0, 255], to logits (N, 1, H, W): positive inside the mask."""
        model, num = self.model, image.shape[0]
        latents = model.codec.encode(self.normalized(image))  # (N, C, h, w)
        start = latents if self.noise is None else self.noise.expand(num, -1, -1, -1)
        if prompt_states is not None:
            prompt = PromptEmbeddings(prompt_states, prompt_mask, prompt_pooled)
        else:
            parts = (self.states, self.mask, self.pooled)
            prompt = PromptEmbeddings(*(own if own is None else own.expand(num, *own.shape[1:]) for own in parts))
        shown = latents if model.image_condition else None

        def velocity_fn(noisy: Tensor, sigma: Tensor) -> Tensor:
            return model.backbone(noisy, sigma, prompt, shown)

        grey = model.mask_head.latents_to_grey(model.mask_head.predict(velocity_fn, start))  # (N, 1, H, W)
        return grey - (2 * model.mask_head.threshold - 1)

    def examples(self, num: int, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """See :meth:`ExportedGraph.examples`; with prompts as inputs other ones for each picture."""
        images = super().examples(num, size)
        if self.text is not None:
            return images
        texts = ['the red circle on the left', 'a dog', ''][:num]
        with torch.no_grad():
            prompt = self.model.prompt_encoder(texts, None)
        return (*images, *(own for own in prompt if own is not None))

    def describe(self) -> dict[str, Any]:
        """See :meth:`ExportedGraph.describe`."""
        output = dict(
            name=self.output, layout='NCHW', dtype='float32', range=[-1 - (2 * self.model.mask_head.threshold - 1),
            1 - (2 * self.model.mask_head.threshold - 1)], meaning='positive inside the mask; resize it bilinearly to '
            'the picture and cut at 0',
        )  # fmt: skip
        facts = dict(super().describe(), output=output, steps=self.model.mask_head.num_steps)
        if self.text is not None:
            return dict(facts, text=self.text)
        form = 'as model.prompt_encoder([text]) gives them: states (N, L, D), mask (N, L), pooled (N, P)'
        return dict(facts, prompt=dict(inputs=list(self.inputs[1:]), form=form))


def graph_of(
    inferencer: GenSegInferencer,
    text: str | None = None,
    prompt_input: bool = False,
    size: tuple[int, int] | None = None,
) -> ExportedGraph:
    """The graph of a model, in float32 on the CPU.

    Args:
        inferencer: With the model, whose own ``tiles`` have no part in a file: it sees whole pictures. It must not be
            used afterwards.
        text: The sentence of a GenMask.
        prompt_input: Of a GenMask: prompts are an input.
        size: (height, width) of the pictures; default: as the model wants, if any size is not possible.

    Raises:
        ValueError: If the model is of another kind, or text and kind do not fit.
    """
    model = inferencer.model.cpu().float().eval()
    if isinstance(model, Gen2Seg):
        if text is not None or prompt_input:
            raise ValueError('a text is for GenMask, but got a Gen2Seg, whose masks are made of its colour map')
        model.tiles = None
        return ColorMapGraph(model)
    if not isinstance(model, GenMask):
        raise ValueError(f'expected a Gen2Seg or GenMask to export, but got {type(model).__name__}')
    if (text is None) != prompt_input:
        got = 'both' if prompt_input else 'neither'
        raise ValueError(f'GenMask takes a text, or prompts as an input (--text, --prompt-input), but got {got}')
    return MaskGraph(model, text, size or (size_for(model) if model.start == 'noise' else None))


def multiples_of(model: nn.Module) -> tuple[int, int]:
    """(height, width) in pixels of which the sides of a network's pictures are multiples."""
    if isinstance(model, GenMask):
        return tuple(model.codec.downsample * own for own in model.backbone.patch_size)
    colorer = model.colorer
    resize = colorer.network_resize(0) if hasattr(colorer, 'network_resize') else network_resize_of(colorer)
    return tuple((resize or {}).get('multiples') or (1, 1))


def size_for(model: nn.Module) -> tuple[int, int]:
    """(height, width) of a file for pictures of one size: the square of the size that the network works at.

    Raises:
        ValueError: If it works at any.
    """
    resize = network_resize_of(model) or {}
    if resize.get('size'):
        return tuple(resize['size'])
    if resize.get('longer_side'):
        return tuple(max(1, round(resize['longer_side'] / own)) * own for own in multiples_of(model))
    raise ValueError(
        f'{type(model).__name__} takes pictures of any size, but its file has to have one: give --size HEIGHT WIDTH'
    )
