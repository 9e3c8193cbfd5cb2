"""Packing of samples for models and metrics."""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from genseg_mm.datasets.transforms.mask_values import CHECKED, check_mask_values, mask_file
from genseg_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackGenSegInputs(BaseTransform):
    """Packs a sample for the models and metrics (see ``models/data_preprocessor.py`` for the contract).

    Required key: img, unless there are cached image_latents. Packed: ``inputs`` uint8 (3, H, W), (3, 0, 0) without
    img; ``data_samples`` an mmseg SegDataSample with ``gt_sem_seg``, ``gt_instance_map``,
    ``gt_boundaries`` (N, H, W) and what :class:`CachedEncodings` adds where present.

    Args:
        meta_keys: Keys copied to the data sample's metainfo where present.
    """

    META_KEYS = (
        'img_path',
        'img_id',
        'ori_shape',
        'img_shape',
        'flip',
        'text',
        'expression',
        'question',
        'task',
        'kind',
        'length',
        'subset',
        'sample_idx',
        'ref_id',
        'sent_id',
        'ann_ids',
        'points',
        'point_labels',
        'point_ids',
        'point_keys',
        'point_areas',
        'boxes',
        'ignore_background',
        'instances',
    )

    CACHED_KEYS = (
        'image_latents',
        'mask_latents',
        'prompt_states',
        'prompt_mask',
        'prompt_pooled',
        'empty_prompt_states',
        'empty_prompt_mask',
        'empty_prompt_pooled',
    )

    def __init__(self, meta_keys: Sequence[str] = META_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Packs the sample."""
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        is_referring = 'text' in results and results.get('task', 'mask') == 'mask'
        if is_referring and 'gt_seg_map' in results and not results.get(CHECKED):
            check_mask_values(np.asarray(results['gt_seg_map']), mask_file(results))
        sample = SegDataSample()
        for source, name, dtype in (
            ('gt_seg_map', 'gt_sem_seg', torch.uint8),
            ('gt_instance_map', 'gt_instance_map', torch.int64),
            ('gt_boundaries', 'gt_boundaries', torch.uint8),
        ):
            if source in results:
                data = torch.from_numpy(np.ascontiguousarray(results[source])).to(dtype)
                data = data if data.ndim == 3 else data[None]
                sample.set_data({name: PixelData(data=data)})
        sample.set_data({key: results[key] for key in self.CACHED_KEYS if key in results})
        meta_keys = (*self.meta_keys, 'encoder_fingerprints', 'cached_text', CHECKED)
        sample.set_metainfo({key: results[key] for key in meta_keys if key in results})
        return dict(inputs=_pixels(results), data_samples=sample)


def _pixels(results: dict) -> torch.Tensor:
    if 'img' in results:
        return torch.from_numpy(np.ascontiguousarray(results['img'].transpose(2, 0, 1)))
    if 'image_latents' in results:
        return torch.zeros(3, 0, 0, dtype=torch.uint8)
    raise ValueError(
        f'the sample of {results.get("img_path", "?")!r} has neither img nor cached image_latents: put LoadImage or '
        'CachedEncodings before PackGenSegInputs'
    )
