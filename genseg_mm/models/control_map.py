"""Models that know nothing of instances, for rows of their own beside a point-prompt score."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor, nn

from genseg_mm.functional.color_maps import position_map, raw_image
from genseg_mm.registry import MODELS

KINDS = ('rgb', 'position', 'oracle')


@MODELS.register_module()
class ControlMap(BaseModel):
    """A fixed colour map in place of a model's: what a score is worth without any knowledge of instances.

    ``PointPromptMetric`` measures the same maps beside every model (``control_rgb``, ``control_position``,
    ``oracle_foreground``); as models they are evaluated once, by any metric of colour maps. The numbers are the same
    to the last bit where the pipeline is the same.

    There is nothing to train or load: test it without a checkpoint, and without a data preprocessor that changes the
    pictures.

    Args:
        kind: ``'rgb'``: the raw image; ``'position'``: red is x and green is y, so that masks are disks; ``'oracle'``:
            the same disks, which the metric cuts by the true foreground of ``gt_instance_map``, that is perfect
            foreground with no grouping.
        data_preprocessor: MMEngine's plain one by default, which only moves the data.
        init_cfg: MMEngine's.

    Raises:
        ValueError: If the kind is not known.
    """

    @classmethod
    def benchmark_tasks(cls, config: Mapping) -> tuple[str, ...]:
        """What a benchmark can measure of a model of this config."""
        if config.get('kind') == 'oracle':  # needs the instances of the ground truth
            return ('points',)
        return ('points', 'edges')

    def __init__(
        self, kind: str = 'rgb', data_preprocessor: dict[str, Any] | None = None, init_cfg: dict[str, Any] | None = None
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if kind not in KINDS:
            raise ValueError(f'kind must be one of {KINDS}, but got {kind!r}')
        self.kind = kind
        # DistributedDataParallel refuses a module without parameters; this one has no elements.
        self.nothing = nn.Parameter(torch.zeros(0))

    def forward(
        self, inputs: list[Tensor] | Tensor, data_samples: list[BaseDataElement] | None = None, mode: str = 'predict'
    ) -> list[BaseDataElement]:
        """The samples with their maps.

        Args:
            inputs: N images, uint8 BGR (3, h, w), as the loader packs them.
            data_samples: N data samples; metainfo ``img_shape`` (without padding) and ``ori_shape``; for the oracle
                with ``gt_instance_map`` (1, H, W).
            mode: ``'predict'``.

        Returns:
            The samples with ``pred_color_map`` (3, H, W) in [0, 255] at the original size, and for the oracle
            ``pred_foreground`` (1, H, W) bool.

        Raises:
            ValueError: If the mode is another one, the images are not the loader's, or the oracle has no map.
        """
        if mode != 'predict':
            raise ValueError(f"mode must be 'predict', as a ControlMap has nothing to train, but got {mode!r}")
        if data_samples is None:
            raise ValueError('ControlMap needs data samples to write its maps to, but got None')
        for image, sample in zip(inputs, data_samples, strict=True):
            if image.dtype != torch.uint8:
                raise ValueError(
                    f'ControlMap expects uint8 images as the loader packs them, but got {image.dtype}; leave '
                    'data_preprocessor out of its config'
                )
            img_shape = sample.metainfo.get('img_shape', image.shape[-2:])[:2]
            size = tuple(sample.metainfo.get('ori_shape', img_shape)[:2])
            if self.kind == 'rgb':
                colors = raw_image(image, img_shape, size)
            else:
                colors = position_map(size).to(image.device)
            sample.pred_color_map = PixelData(data=colors)
            if self.kind == 'oracle':
                sample.pred_foreground = PixelData(data=_foreground(sample, size))
        return data_samples


def _foreground(sample: BaseDataElement, size: tuple[int, int]) -> Tensor:
    where = sample.metainfo.get('img_path') or 'a sample'
    if 'gt_instance_map' not in sample:
        raise ValueError(
            f"ControlMap(kind='oracle') reads the true foreground, but {where} has no gt_instance_map; "
            'add dict(type="genseg_mm.LoadInstanceMap") to the test pipeline'
        )
    ids = sample.gt_instance_map.data
    if tuple(ids.shape[-2:]) != size:
        raise ValueError(
            f"ControlMap(kind='oracle') expects gt_instance_map of the original size {size}, but got "
            f'{tuple(ids.shape[-2:])} ({where}); load it after Resize in the test pipeline'
        )
    return ids > 0
