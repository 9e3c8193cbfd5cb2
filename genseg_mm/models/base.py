"""What the models of both papers share: logs of all ranks, mmseg's functions, seeded noise, semantic maps, patches."""

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement, PixelData
from torch import Generator, Tensor

from genseg_mm.functional.similarity_masks import any_along
from genseg_mm.models.saved import SavedModel
from genseg_mm.registry import TRANSFORMS

IGNORED = 255  # label that metrics and visualisers of mmseg and mmdet leave out


class GenSegModel(SavedModel, BaseModel):
    """BaseModel whose logged losses are means over all ranks, and which mmseg's functions build and run on pictures.

    ::

        model = mmseg.apis.init_model('configs/genmask/genmask_sana_shapes_tiny.py', 'iter_2800.pth', device='cpu')
        model.text = 'the red circle'                              # GenMask; mmseg hands over no text
        mmseg.apis.inference_model(model, 'scene.png').pred_sem_seg

    ``inference_model`` reads a picture through ``model.cfg.test_pipeline``. Ours load annotations and prompts, too, so
    the config that the model gives back has a test pipeline for a picture alone, which is prepared as by
    :class:`genseg_mm.inferencers.GenSegInferencer`.

    Args:
        data_preprocessor: Config; default :class:`GenSegDataPreprocessor`.
        init_cfg: MMEngine's.
        pretrained: None, as ``mmseg.apis.init_model`` sets it in any config; so ``train_cfg``.

    Attributes:
        text: What GenMask segments in such pictures. None warns, and stands for the empty text.
        takes_texts: Whether the model needs one.

    Raises:
        ValueError: If ``pretrained`` or ``train_cfg`` is something else.
    """

    text: str | None = None
    takes_texts = False

    def __init__(
        self,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
        pretrained: None = None,
        train_cfg: None = None,
    ) -> None:
        super().__init__(data_preprocessor or dict(type='genseg_mm.GenSegDataPreprocessor'), init_cfg)
        for name, value in (('pretrained', pretrained), ('train_cfg', train_cfg)):
            if value is not None:
                raise ValueError(f'{type(self).__name__} has no setting {name}: expected None, but got {value!r}')

    def init_weights(self) -> None:
        """As MMEngine's, which takes the mean of every parameter before and after, to log which have changed.

        Of parts that come with their weights none has, and that reads each of billions of them twice.
        """
        if self.init_cfg or self._is_init:
            super().init_weights()
            return
        for child in self.children():
            if hasattr(child, 'init_weights') and not getattr(child, 'is_init', False):
                child.init_weights()
        self._is_init = True

    def parse_losses(self, losses: dict[str, Tensor | list[Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
        """Sums the losses for the backward pass and averages their logged values over ranks.

        MMEngine logs those of rank 0 alone.

        Args:
            losses: Scalars or lists of scalars by name; names with 'loss' in them are summed. Every rank must give the
                same names. With ``num_samples_<task>``, the samples of each task in the batch of this rank, the
                ``TaskLogProcessor`` logs ``loss_<task>`` as a mean over them.

        Returns:
            The loss of this rank, and the values to log (detached, the same on every rank): means over all samples,
            and sums of ``num_samples_<task>``.
        """
        loss, log_vars = super().parse_losses(losses)
        values = torch.stack([value.detach().float() for value in log_vars.values()])
        is_count = torch.tensor([name.startswith('num_samples_') for name in log_vars])
        if not is_count.any():
            all_reduce(values, op='mean')
            return loss, OrderedDict(zip(log_vars, values, strict=True))
        is_count = is_count.to(values.device)
        weighted = torch.where(is_count, values, values * values[is_count].sum())
        all_reduce(weighted, op='sum')
        values = torch.where(is_count, weighted, weighted / weighted[is_count].sum())
        return loss, OrderedDict(zip(log_vars, values, strict=True))

    @property
    def cfg(self) -> Config:
        """The config, whose ``test_pipeline`` reads single pictures (a path, or BGR as an array)."""
        if '_cfg' not in self.__dict__:
            raise AttributeError('cfg')
        cfg = self.__dict__['_cfg']
        if isinstance(cfg, Config):
            # Anew each time, since mmseg changes the first transform for arrays: its own, found in its scope.
            load = dict(type='genseg_mm.LoadImage', _scope_='mmseg')
            cfg.test_pipeline = [load, dict(type=self._picture_transform)]
        return cfg

    @cfg.setter
    def cfg(self, cfg: Config) -> None:
        self.__dict__['_cfg'] = copy.copy(cfg)
        self.__dict__['_given_cfg'] = cfg

    def _picture_transform(self) -> Callable[[dict], dict]:
        cfg = self.__dict__['_given_cfg']
        scope = cfg.get('default_scope') or 'genseg_mm'
        prepare = TRANSFORMS.build(dict(type='genseg_mm.NetworkPipeline', model=self, cfg=cfg, scope=scope))

        def transform(results: dict) -> dict:
            text = self.text if self.takes_texts else None
            if self.takes_texts and text is None:
                warnings.warn(
                    "mmseg's inference_model hands over no text: set model.text = 'the red circle'; segmenting for ''",
                    stacklevel=2,
                )
                text = ''
            return prepare(dict(img=results['img'], img_path=results.get('img_path'), text=text))

        return transform


# Randomness from (seed, iteration, position in the batch of all ranks) alone, so that a resumed run repeats it.


def seeded_generator(*key: int) -> Generator:
    """CPU generator seeded by a tuple of non-negative integers."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def training_generators(num: int) -> list[Generator]:
    """One generator per sample of the batch, keyed by (run seed, iteration, its place among those of the iteration).

    The loop says the places where an iteration has several batches (see ``UpdateBasedTrainLoop``). Else samplers deal
    indices out to the ranks in turn, and it is the position in the batch of all ranks.
    """
    hub = MessageHub.get_current_instance()
    seed, iteration = int(hub.get_info('seed', 0) or 0), int(hub.get_info('iter', 0))
    places = hub.get_info('places_in_update')
    if places is None:
        rank, world_size = get_rank(), get_world_size()
        places = [index * world_size + rank for index in range(num)]
    return [seeded_generator(seed, iteration, place) for place in places[:num]]


def draw_noise(shape: Sequence[int], generators: Sequence[Generator]) -> Tensor:
    """Standard normal noise, ``(N, *shape)``, sample by sample on the CPU: the same on all devices and in any batch."""
    return torch.stack([torch.randn(*shape, generator=own) for own in generators])


def semantic_map(labels: Tensor, stuff: Tensor | None = None) -> PixelData:
    """A map as mmseg reads it (``data``) and mmdet (``sem_seg``).

    Args:
        labels: (1, H, W) uint8.
        stuff: What mmdet's visualiser paints, (1, H, W) uint8; default: the labels but 0.
    """
    labels = labels.to(torch.uint8)
    if stuff is None:
        stuff = labels.masked_fill(labels == 0, IGNORED)
    return PixelData(data=labels, sem_seg=stuff)


def add_semantic_maps(sample: BaseDataElement) -> None:
    """Adds background (0) and object (1) to a sample with instances: ``pred_sem_seg``, ``gt_sem_seg``.

    mmdet's visualiser paints instances and then the semantic map, which would hide them: for it that one is empty.

    Args:
        sample: With ``pred_instances``, or nothing is added; the ground truth comes from ``gt_instance_map`` where
            that has the size of the masks, with 255 where the metainfo ``ignore_background`` says that the background
            is unlabelled.
    """
    if 'pred_instances' not in sample:
        return
    found = any_along(sample.pred_instances.masks, 0)[None]  # (1, H, W)
    nothing = torch.full_like(found, IGNORED, dtype=torch.uint8)
    sample.pred_sem_seg = semantic_map(found, nothing)
    if 'gt_instance_map' in sample and 'gt_sem_seg' not in sample:
        ids = sample.gt_instance_map.data
        if ids.shape == found.shape:
            rest = IGNORED if sample.metainfo.get('ignore_background') else 0
            sample.gt_sem_seg = semantic_map(torch.where(ids > 0, 1, rest))


def check_patches(images: Tensor, patch_size: int, owner: str) -> None:
    """Raises ValueError if the sides of (N, 3, H, W) images are no multiples of the patch size."""
    height, width = images.shape[-2:]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f'{owner} expects image sides that are multiples of its patch size {patch_size}, '
            f'but got height {height} and width {width}; resize in the pipeline '
            f'or set pad_size_divisor={patch_size} in the data preprocessor'
        )
