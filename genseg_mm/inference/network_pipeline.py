"""From an image and a text to what a model's ``test_step`` takes."""

from collections.abc import Sequence

import numpy as np
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope
from PIL import Image
from torch import nn

from genseg_mm.datasets import PackGenSegInputs
from genseg_mm.models import GenMask
from genseg_mm.models.colorers.patches import nearest_multiples


class NetworkPipeline:
    """Resizes images for the network, and puts texts into the instruction that the model was trained with.

    ``Resize`` and ``TextPrompt`` of the config's test pipeline are used where it has them; its other transforms load
    files and annotations.

    Args:
        model: ``Gen2Seg`` or ``GenMask``.
        cfg: Its config; may be empty.
        scope: In which the types of the config are found.
    """

    def __init__(self, model: nn.Module, cfg: Config, scope: str) -> None:
        self.model = model
        self.pack = PackGenSegInputs()
        pipeline = _test_pipeline(cfg)
        with DefaultScope.overwrite_default_scope(scope):
            self.resize, self.instruct = (
                [TRANSFORMS.build(one) for one in pipeline if class_name(one['type']) == kind]
                for kind in ('Resize', 'TextPrompt')
            )

    def __call__(
        self, image: np.ndarray, path: str, text: str | None, image_size: int | Sequence[int] | None
    ) -> dict:
        """Packs one image.

        Args:
            image: BGR, uint8, (H, W, 3).
            path: Of its file, or ''.
            text: Of GenMask.
            image_size: (height, width) or one number for both, before all other sizes.

        Returns:
            ``inputs`` (3, h, w) uint8 and ``data_samples``.
        """
        shape = image.shape[:2]
        # The noise of GenMask depends on sample_idx: an image and a text give one mask, wherever they stand in a list.
        results = dict(img=image, img_path=path, img_shape=shape, ori_shape=shape, sample_idx=0)
        if image_size is None and self.resize:
            for transform in self.resize:
                results = transform(results)
        else:
            size = self._preferred_size(*shape) if image_size is None else _checked_size(image_size)
            if size != shape:
                resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
                results.update(img=np.asarray(resized), img_shape=size)
        if text is not None:
            results.update(text=text, task='mask')
            for transform in self.instruct:
                results = transform(results)
        return self.pack(results)

    def _preferred_size(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.model, GenMask):
            strides = [
                self.model.codec.downsample * side for side in self.model.backbone.patch_size
            ]
            return nearest_multiples(height, width, strides)
        preferred = getattr(
            self.model.colorer, 'preferred_size', None
        )  # any module may be a colorer
        return (height, width) if preferred is None else tuple(map(int, preferred(height, width)))


def _checked_size(image_size: int | Sequence[int]) -> tuple[int, int]:
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(
            f'image_size must be (height, width) or one number, in pixels, but got {image_size!r}'
        )
    return sides


def _test_pipeline(cfg: Config) -> list[dict]:
    """Transforms of the test dataset of a config; none where it has no such dataset."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while not dataset.get('pipeline') and (dataset.get('dataset') or dataset.get('datasets')):
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    return dataset.get('pipeline') or cfg.get('test_pipeline') or []


def class_name(kind: str | type) -> str:
    """Name of the class that a config's ``type`` means, without its scope."""
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__
