"""What brings one picture to a network: the test pipeline of a config without what loads files and annotations."""

from collections.abc import Sequence
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from genseg_mm.dataset_configs import pipeline_of
from genseg_mm.datasets.transforms.images import NetworkResize, PackGenSegInputs
from genseg_mm.network_sizes import is_network_resize, network_resize_of
from genseg_mm.registry import TRANSFORMS, class_name

RESIZES = ('Resize', 'AntialiasedResize', 'NetworkResize')


@TRANSFORMS.register_module()
class NetworkPipeline:
    """Resizes images for the network, and puts texts into the instruction that the model was trained with.

    ``Resize`` and ``TextPrompt`` of the config's test pipeline are used where it has them; its other transforms load
    files and annotations. Without a Resize, or with ``NetworkResize`` without settings, the model says the size
    (``network_resize_of``), and so it does where its ``processing_size`` was set by hand.

    Args:
        model: The model.
        cfg: Its config; may be empty.
        scope: In which the types of the config are found.
    """

    def __init__(self, model: nn.Module, cfg: Config, scope: str) -> None:
        self.model = model
        self.pack = PackGenSegInputs()
        # NetworkResize without settings means the size that the model asks for.
        pipeline = [one for one in pipeline_of(cfg) if not is_network_resize(one)]
        with DefaultScope.overwrite_default_scope(scope):
            self.resize, self.instruct = (
                [TRANSFORMS.build(one) for one in pipeline if class_name(one['type']) in kinds]
                for kinds in (RESIZES, ('TextPrompt',))
            )
        self.size_by_hand = False

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Packs one picture.

        Args:
            results: ``img`` (H, W, 3) BGR uint8; and, where there is one, ``img_path``, ``text`` of GenMask, and
                ``image_size`` before all other sizes: (height, width), or one number for both.

        Returns:
            ``inputs`` (3, h, w) uint8 and ``data_samples``.
        """
        image, text, image_size = results['img'], results.get('text'), results.get('image_size')
        shape = image.shape[:2]
        # The noise of GenMask depends on sample_idx: an image and a text give one mask, wherever they stand in a list.
        path = results.get('img_path') or ''
        results = dict(img=image, img_path=path, img_shape=shape, ori_shape=shape, sample_idx=0)
        if image_size is not None:
            resizes = [NetworkResize(size=_checked_size(image_size))]
        elif self.resize and not self.size_by_hand:
            resizes = self.resize
        else:
            wanted = network_resize_of(self.model)
            resizes = [] if wanted is None else [NetworkResize(**wanted)]
        for transform in resizes:
            results = transform(results)
        if text is not None:
            results.update(text=text, task='mask')
            for transform in self.instruct:
                results = transform(results)
        return self.pack(results)


def _checked_size(image_size: int | Sequence[int]) -> tuple[int, int]:
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f'image_size must be (height, width) or one number, in pixels, but got {image_size!r}')
    return sides
