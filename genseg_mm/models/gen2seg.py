"""gen2seg (arXiv 2505.15263): a generative model made an instance colorer, prompted or not; released weights."""

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement, PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from genseg_mm.finite import check_finite, picture_of
from genseg_mm.functional.color_maps import (
    check_color_scale,
    check_stretch,
    extremes_of,
    normalize_colors,
    stretch_colors,
)
from genseg_mm.models.base import GenSegModel, add_semantic_maps
from genseg_mm.models.colorers.released_folder import released_kind
from genseg_mm.models.coloring_head import coloring_losses
from genseg_mm.models.map_prompting import MapPrompting, settings_of
from genseg_mm.models.saved import load_saved
from genseg_mm.models.saved.config import SAVED
from genseg_mm.models.tiled_maps import checked_tiles, tiled_colors, tiled_resize, whole_sizes
from genseg_mm.network_sizes import checked_processing_size, network_resize_of
from genseg_mm.registry import MODELS

OUTPUTS = ('float', 'picture')


@MODELS.register_module()
class Gen2Seg(MapPrompting, GenSegModel):
    """Colours every instance of an image in one flat colour.

    Masks are read off the map: those of point and box prompts, or all instances without a prompt.

    Args:
        colorer: Config of a module with ``forward(images (N, 3, H, W) in [-1, 1]) -> (N, 3, h, w)``, in any size: one
            of ours, or a segmentor of mmseg whose decode head gives three channels.
        loss: Config of the coloring loss.
        data_preprocessor: Config of the data preprocessor.
        normalize: Colour scale of the raw maps, see
            :func:`genseg_mm.functional.color_maps.normalize_colors`. ``'sigmoid'`` for models trained
            from scratch; the released weights and the paper's recipe need ``'batch'`` (default).
        bias: Added before the sigmoid.
        gamma: Exponent on the stretched map at inference (default 1); the reference uses 0.7 for the MAE.
        prompting: Keyword arguments of
            :func:`genseg_mm.functional.point_prompting.masks_from_points` (rule and its settings).
        automatic: Settings of
            :func:`genseg_mm.models.map_prompting.automatic_instances`, or True for its
            defaults: samples without prompts then get instances too, as mmdet's ``CocoMetric``
            needs them. None: they get none.
        stretch: What a map is stretched over at inference: ``'image'`` (default), itself, so that no map
            depends on others; ``'padded'``, itself with the padding of the network's input, as the released Stable
            Diffusion pipeline does; ``'batch'``, all maps of its batch.
        output: ``'float'`` (default): the map is resized to the image bilinearly. ``'picture'``: it is cut to 8 bits,
            and that picture resized by PIL's Lanczos, as the public scripts do.
        preset: ``'as_published'``: what is not given of ``normalize``, ``gamma``, ``stretch`` and ``output`` is as the
            public code has it for this colorer, see ``AS_PUBLISHED``.
        processing_size: Size that pictures are brought to for the network, by everything that feeds it: the longer
            side, (height, width), or 0 for their own; None: as the colorer asks (:meth:`network_resize`).
        tiles: At inference, the network sees overlapping tiles of a picture, too, and small objects larger: ``size``
            (default 2/3), ``overlap`` (1/2) and ``blend`` (1/2), see
            :func:`genseg_mm.models.tiled_maps.checked_tiles`, or True for these. The colours of each tile are fitted to
            the map of the whole (:mod:`genseg_mm.functional.map_tiles`). ``network_resize`` then asks for pictures in
            which a tile, and no longer the whole, has the size of the network. None (default): no tiles.
        init_cfg: MMEngine's.
        pretrained: None, as ``mmseg.apis.init_model`` sets it; so ``train_cfg``.

    Raises:
        ValueError: If the colour scale, the stretch, the output, the preset or a setting of ``automatic`` or ``tiles``
            is not known, gamma is not positive, or the colorer gives no colour map.
    """

    @classmethod
    def benchmark_tasks(cls, config: Mapping) -> tuple[str, ...]:
        """What a benchmark can measure of a model of this config."""
        return ('points', 'edges', 'instances')

    def __init__(
        self,
        colorer: dict[str, Any],
        loss: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        normalize: str | None = None,
        bias: float = 0.0,
        gamma: float | None = None,
        prompting: dict[str, Any] | None = None,
        automatic: dict[str, Any] | bool | None = None,
        stretch: str | None = None,
        output: str | None = None,
        preset: str | None = None,
        processing_size: int | tuple[int, int] | None = None,
        tiles: dict[str, float] | bool | None = None,
        init_cfg: dict[str, Any] | None = None,
        pretrained: None = None,
        train_cfg: None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg, pretrained, train_cfg)
        self.colorer = MODELS.build(colorer)
        settings = settings_for(
            preset,
            type(self.colorer).__name__,
            normalize=normalize, gamma=gamma, stretch=stretch, output=output,
        )  # fmt: skip
        normalize, gamma, stretch, output = (settings[key] for key in ('normalize', 'gamma', 'stretch', 'output'))
        check_color_scale(normalize)
        check_stretch(stretch)
        if gamma <= 0:
            raise ValueError(f'gamma must be positive, but got {gamma}')
        if output not in OUTPUTS:
            raise ValueError(f'output must be one of {", ".join(OUTPUTS)}, but got {output!r}')
        _check_colorer(self.colorer)
        self.coloring_loss = MODELS.build(loss or {'type': 'genseg_mm.InstanceColoringLoss'})
        self.normalize = normalize
        self.bias = bias
        self.gamma = gamma
        self.prompting = dict(prompting or {})
        self.automatic = settings_of(automatic)
        self.stretch = stretch
        self.output = output
        self.processing_size = checked_processing_size(processing_size)
        self.tiles = checked_tiles(tiles)

    def network_resize(self) -> dict[str, Any]:
        """How pictures are brought to the size that the network works at, as ``NetworkResize`` takes it.

        ``processing_size`` decides; without it the colorer. Of what the sides are multiples is the colorer's to say,
        too; one that says nothing takes any. With ``tiles`` it is the size of a tile.
        """
        resize = self._whole_resize()
        return resize if self.tiles is None else tiled_resize(resize, self.tiles)

    def _whole_resize(self) -> dict[str, Any]:
        size = self.processing_size
        if size is None:
            return network_resize_of(self.colorer) or dict(longer_side=0)
        if hasattr(self.colorer, 'network_resize'):
            return self.colorer.network_resize(size)
        if not isinstance(size, int):
            return dict(size=size)
        multiples = (network_resize_of(self.colorer) or {}).get('multiples', (1, 1))
        return dict(longer_side=size, multiples=multiples)

    def raw_maps(self, inputs: Tensor) -> Tensor:
        """Raw maps of the colorer at the size of the inputs, (N, 3, H, W).

        Raises:
            ValueError: If it gives something else.
        """
        raw = self.colorer(inputs)
        if not isinstance(raw, Tensor) or raw.ndim != 4 or raw.shape[1] != 3:
            form = tuple(raw.shape) if isinstance(raw, Tensor) else f'{type(raw).__name__} of {len(raw)}'
            raise ValueError(
                f'the colorer {type(self.colorer).__name__} must give maps (N, 3, h, w), but got {form}; {_HEAD}'
            )
        if raw.shape[-2:] != inputs.shape[-2:]:
            raw = F.interpolate(raw, size=inputs.shape[-2:], mode='bilinear', align_corners=False)
        return raw

    def _tiled(self, image: Tensor, sample: BaseDataElement, scale: str) -> Tensor:
        """Colours of one picture (3, h, w) without padding, from its whole and its tiles."""
        sizes = whole_sizes(image.shape[-2:], sample.metainfo.get('ori_shape'), self._whole_resize(), self.tiles)

        def colors_of(part: Tensor) -> Tensor:
            raw = self.raw_maps(part)
            check_finite(raw, 'colours', picture_of(sample, 0))
            return normalize_colors(raw, scale, self.bias)

        return tiled_colors(colors_of, image, sizes, self.tiles)

    def forward(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | list[BaseDataElement]:
        """MMEngine's three modes.

        Args:
            inputs: RGB in [-1, 1], (N, 3, H, W).
            data_samples: N data samples; needed by ``'loss'``.
            mode: ``'loss'``, ``'predict'`` or ``'tensor'``.

        Returns:
            Losses by name; data samples with predictions; or raw maps (N, 3, H, W).

        Raises:
            ValueError: If the mode is not known.
        """
        if mode == 'tensor':
            return self.raw_maps(inputs)
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise ValueError(f'mode must be loss, predict or tensor, but got {mode!r}')

    def loss(self, inputs: Tensor, data_samples: list[BaseDataElement]) -> dict[str, Tensor]:
        """Instance-coloring loss against ``gt_instance_map``.

        Args:
            inputs: RGB in [-1, 1], (N, 3, H, W).
            data_samples: N data samples with ``gt_instance_map`` at the input's size; the metainfo
                ``ignore_background`` marks samples whose background is unlabelled.

        Returns:
            ``loss_variance``, ``loss_separation``, ``loss_means``.
        """
        colors = normalize_colors(self.raw_maps(inputs), self.normalize, self.bias)
        return coloring_losses(self.coloring_loss, colors, data_samples)

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: list[BaseDataElement] | None = None) -> list[BaseDataElement]:
        """Colour maps, and instances for the samples with prompts, or for all with ``automatic``.

        A map is stretched to [0, 255] over its own valid area (without padding), whatever scale it
        was trained with, so that a prediction does not depend on its batch, unless ``stretch`` says
        so. Then it is resized to the original image. Instances without prompts are grouped on the network's own map
        and resized after that: its edges are what tells them apart.

        Args:
            inputs: RGB in [-1, 1], (N, 3, H, W).
            data_samples: N data samples; metainfo ``img_shape`` (valid area), ``ori_shape``, and
                for prompts, in pixels of the original image, ``points`` (K, P, 2) or (K, 2) as
                (x, y), ``point_labels`` (K, P), ``boxes`` (K, 4) xyxy; ``automatic=False`` for no instances where
                there are no prompts.

        Returns:
            The samples with ``pred_color_map`` (3, H, W) and, given prompts or ``automatic``,
            ``pred_instances`` with ``masks`` (K, H, W), ``scores``, ``labels`` (zeros) and
            ``bboxes`` (xyxy); all at the original size. ``pred_network_map`` (3, h, w) is the map at the network's.
            For mmseg's metric and visualiser the same as a semantic map: ``pred_sem_seg`` (1, H, W), 1 in any of
            the masks, and ``gt_sem_seg`` where there is a ``gt_instance_map`` at that size (255 where the background
            is unlabelled).
        """
        if data_samples is None:
            data_samples = [SegDataSample() for _ in inputs]
        # Extremes of the batch or image only shift and scale a map, which the stretch undoes.
        scale = 'none' if self.normalize in ('batch', 'image') else self.normalize
        sizes = [sample.metainfo.get('img_shape', inputs.shape[-2:])[:2] for sample in data_samples]
        if self.tiles is not None:
            images = [image[:, :height, :width] for image, (height, width) in zip(inputs, sizes, strict=True)]
            whole = maps = [self._tiled(*pair, scale) for pair in zip(images, data_samples, strict=True)]
        else:
            raw = self.raw_maps(inputs)
            for place, (own, sample, (height, width)) in enumerate(zip(raw, data_samples, sizes, strict=True)):
                check_finite(own[:, :height, :width], 'colours', picture_of(sample, place))
            whole = normalize_colors(raw, scale, self.bias)
            maps = [own[:, :height, :width] for own, (height, width) in zip(whole, sizes, strict=True)]  # (3, h, w)
        extremes = extremes_of(maps) if self.stretch == 'batch' else None
        for colors, padded, sample in zip(maps, whole, data_samples, strict=True):
            size = sample.metainfo.get('ori_shape', colors.shape[-2:])[:2]
            if self.stretch == 'padded':
                extremes = extremes_of([padded])
            small = stretch_colors(colors, self.gamma, extremes)
            resize = resize_picture if self.output == 'picture' else resize_map
            colors = resize(small, tuple(size))
            sample.pred_network_map = PixelData(data=small)
            sample.pred_color_map = PixelData(data=colors)
            prompts = {key: sample.metainfo.get(key) for key in ('points', 'point_labels', 'boxes')}
            if prompts['points'] is not None or prompts['boxes'] is not None:
                sample.pred_instances = self.prompt(colors, **prompts)
            elif self.automatic is not None and sample.metainfo.get('automatic', True):
                sample.pred_instances = self.automatic_instances(small, size=tuple(size))
            add_semantic_maps(sample)
        return data_samples


_HEAD = (
    'put a head behind it: colorer=dict(type="mmseg.EncoderDecoder", backbone=dict(...), '
    'decode_head=dict(type="genseg_mm.InstanceColoringHead", in_channels=[...], in_index=[...]))'
)


def _check_colorer(colorer: nn.Module) -> None:
    """Refuses what is known to give no colour map: bare backbones, and segmentors of another number of channels."""
    head = getattr(colorer, 'decode_head', None)
    if head is None and hasattr(colorer, 'out_indices'):
        raise ValueError(
            f'the colorer {type(colorer).__name__} is a backbone, which gives feature maps: expected one map of three '
            f'channels; {_HEAD}'
        )
    head = head[-1] if isinstance(head, nn.ModuleList) else head
    channels = getattr(head, 'out_channels', 3)
    if channels != 3:
        raise ValueError(
            f'the decode head {type(head).__name__} of the colorer {type(colorer).__name__} gives {channels} channels: '
            f'expected the three of a colour map; {_HEAD}'
        )


def resize_picture(colors: Tensor, size: tuple[int, int]) -> Tensor:
    """The map cut to 8 bits, and that picture resized by PIL's Lanczos: (3, h, w) to (3, H, W), whole float32."""
    picture = colors.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    resized = Image.fromarray(np.ascontiguousarray(picture))
    if tuple(size) != picture.shape[:2]:
        resized = resized.resize(tuple(size)[::-1], Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).to(colors.device, torch.float32).contiguous()


def resize_map(colors: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (3, h, w) colours to (3, H, W)."""
    if tuple(colors.shape[-2:]) == tuple(size):
        return colors
    return F.interpolate(colors[None], size=tuple(size), mode='bilinear', align_corners=False)[0]


# How the public code runs the released weights, by colorer. Both scripts write an 8-bit picture of the map, cut, not
# rounded, and resize that by PIL's Lanczos. The Stable Diffusion pipeline stretches the decoded map with its padding;
# the MAE's stretches each map, then takes it to the power of 0.7. The sizes are the colorers' own
# (``network_resize``).
AS_PUBLISHED = dict(
    SDColorer=dict(normalize='batch', gamma=1.0, stretch='padded', output='picture'),
    MAEColorer=dict(normalize='batch', gamma=0.7, stretch='image', output='picture'),
)
DEFAULTS = dict(normalize='batch', gamma=1.0, stretch='image', output='float')
PRESETS = ('as_published',)


def settings_for(preset: str | None, colorer: str, **given: Any) -> dict[str, Any]:
    """Settings of a ``Gen2Seg``: those given, else the preset's, else the defaults.

    Args:
        preset: 'as_published' or None.
        colorer: Name of the colorer's class.
        given: ``normalize``, ``gamma``, ``stretch``, ``output``; None where not given.

    Raises:
        ValueError: If there is no such preset, or none for this colorer.
    """
    if preset is not None and preset not in PRESETS:
        raise ValueError(f'preset must be one of {", ".join(PRESETS)} or None, but got {preset!r}')
    if preset is not None and colorer not in AS_PUBLISHED:
        raise ValueError(
            f"preset 'as_published' is for {' and '.join(AS_PUBLISHED)}, but got the colorer {colorer}; leave it out"
        )
    own = DEFAULTS if preset is None else AS_PUBLISHED[colorer]
    return {**own, **{key: value for key, value in given.items() if value is not None}}


# What is settled by the kind of folder; all else is the preset's.
RELEASED = {
    'sd': dict(colorer=dict(type='genseg_mm.SDColorer', parity='released'), preset='as_published'),
    'mae': dict(colorer=dict(type='genseg_mm.MAEColorer'), preset='as_published'),
}


def load_released(source: str | PathLike, device: str | torch.device = 'cpu', **overrides: Any) -> GenSegModel:
    """A Gen2Seg from released weights, or from what our trainings wrote in the same formats; or a saved model.

    ``reachomk/gen2seg-sd`` is a Stable Diffusion 2 pipeline, ``reachomk/gen2seg-mae-h`` a
    ``ViTMAEForPreTraining``; the kind is recognised by ``model_index.json`` or ``config.json``. Of
    a hub id only the files needed are fetched. What ``save_pretrained`` of our models wrote is opened as it was.

    Args:
        source: Folder or hub id.
        device: Device of the model.
        overrides: Arguments of :class:`Gen2Seg` in place of the preset's, such as
            ``processing_size=0`` (the own size of a picture) and ``output='float'`` (no 8 bits); ``colorer`` is a dict
            that adds to the colorer's arguments, such as ``dict(parity='training')``.

    Returns:
        The model, in eval mode.

    Raises:
        FileNotFoundError: If there is no such folder, or it is not whole.
        ValueError: If it holds something else or is damaged.
    """
    source = fspath(source)
    kind = released_kind(source)
    if kind == SAVED:
        return load_saved(source, device, **overrides)
    settings = RELEASED[kind]
    colorer = {**settings['colorer'], 'pretrained': source, **overrides.pop('colorer', {})}
    return Gen2Seg(**{**settings, **overrides, 'colorer': colorer}).to(device).eval()
