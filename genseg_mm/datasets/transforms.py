"""Pipeline transforms: prompts, masks, packing."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform

from genseg_mm.datasets.reason_seg_files import draw_shapes
from genseg_mm.datasets.segmentations import decode_segmentation
from genseg_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadReferringMask(BaseTransform):
    """Mask of the referred objects, at the original size.

    Required keys: segmentations (one COCO polygon list or RLE per object), height, width; or shapes and ignore_label
    (ReasonSeg) and ori_shape, the size of the decoded picture; or gt_seg_map already there.
    Added: gt_seg_map (H, W) uint8, 1 on the objects (OR of all parts: summed parts would make overlaps 2), 255 where
    ReasonSeg's regions are to be ignored; seg_fields.

    In training it stands before Resize, which then resizes the mask too; in test after it: the mask stays as it is.
    """

    def transform(self, results: dict) -> dict:
        """Adds the mask."""
        results.setdefault('seg_fields', [])
        if 'gt_seg_map' not in results:
            draw = _draw_reasoning_mask if 'shapes' in results else _draw_referring_mask
            results['gt_seg_map'] = draw(results)
        if 'gt_seg_map' not in results['seg_fields']:
            results['seg_fields'].append('gt_seg_map')
        return results


def _draw_referring_mask(results: dict) -> np.ndarray:
    height, width = results['height'], results['width']
    mask = np.zeros((height, width), bool)
    where = f'{results.get("img_path", "?")}, annotations {results.get("ann_ids", "?")}'
    for segmentation in results['segmentations']:
        mask |= decode_segmentation(segmentation, height, width, where)
    return mask.astype(np.uint8)


def _draw_reasoning_mask(results: dict) -> np.ndarray:
    if 'ori_shape' not in results:
        raise ValueError(
            f'{results.get("img_path", "?")}: LoadReferringMask draws at the size of the decoded picture, but got no '
            'ori_shape: put LoadImage before it'
        )
    height, width = results['ori_shape'][:2]
    ignored = results['ignore_label']
    return draw_shapes(results['shapes'], height, width, ignored, results.get('img_path', '?'))


@TRANSFORMS.register_module()
class TextPrompt(BaseTransform):
    """Puts the sample's text into an instruction.

    Required key: text. Modified: text; the words alone stay in ``expression``.

    Args:
        template: Format string with one ``{}``, e.g. 'Segment {} in this image.'; GenMask's own template is not known.
        lower: Lower-cases and strips the words, as LISA and big_vision do.
    """

    def __init__(self, template: str = '{}', lower: bool = True) -> None:
        if template.count('{}') != 1:
            raise ValueError(f"template must hold '{{}}' exactly once, but got {template!r}")
        self.template, self.lower = template, lower

    def transform(self, results: dict) -> dict:
        """Formats the text."""
        text = results.get('text')
        if not isinstance(text, str):
            raise ValueError(
                f"TextPrompt needs a string 'text' in the sample of {results.get('img_path', '?')!r}, but got {text!r}"
            )
        text = text.strip().lower() if self.lower else text
        results['expression'] = text
        results['text'] = self.template.format(text)
        return results


@TRANSFORMS.register_module()
class PointPrompt(BaseTransform):
    """Draws point prompts inside each instance.

    Required key: gt_instance_map. Added: points (K, P, 2) float32 as (x, y) in pixels of the map, which must
    be at the original size (load it after Resize in test); point_labels (K, P), all 1; point_ids (K,), the
    instance of each prompt.

    Args:
        num_points: Points P per instance.
        mode: 'random' pixel of the instance (drawn with replacement), or its 'deepest' pixel (largest
            distance to the edge).
        seed: Seeds the draw together with the sample's index and the instance's id, so that every run gets
            the same points.
        min_area: Instances of fewer pixels get no prompt.
        overwrite: Draws again where the dataset already gave points.
    """

    def __init__(
        self,
        num_points: int = 1,
        mode: str = 'random',
        seed: int = 0,
        min_area: int = 1,
        overwrite: bool = True,
    ) -> None:
        if mode not in ('random', 'deepest'):
            raise ValueError(f"mode must be 'random' or 'deepest', but got {mode!r}")
        if num_points < 1 or (mode == 'deepest' and num_points != 1):
            raise ValueError(
                f"num_points must be at least 1, and 1 for mode='deepest', but got {num_points}"
            )
        self.num_points, self.mode, self.seed = num_points, mode, seed
        self.min_area, self.overwrite = min_area, overwrite

    def transform(self, results: dict) -> dict:
        """Adds the prompts."""
        if 'points' in results and not self.overwrite:
            return results
        if 'gt_instance_map' not in results:
            raise ValueError('PointPrompt needs gt_instance_map: put LoadInstanceMap before it')
        instance_map = results['gt_instance_map']
        ids, counts = np.unique(instance_map[instance_map > 0], return_counts=True)
        ids = ids[counts >= self.min_area]
        sample = int(results.get('sample_idx', 0))
        points = [self._draw(instance_map == own, [self.seed, sample, int(own)]) for own in ids]
        shape = (len(ids), self.num_points, 2)
        results['points'] = np.asarray(points, np.float32).reshape(shape)
        results['point_labels'] = np.ones(shape[:2], np.int64)
        results['point_ids'] = ids.astype(np.int64)
        return results

    def _draw(self, mask: np.ndarray, key: list[int]) -> np.ndarray:
        if self.mode == 'deepest':
            padded = np.pad(mask, 1).astype(np.uint8)
            depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
            y, x = np.unravel_index(depth.argmax(), depth.shape)
            return np.array([[x, y]])
        flat = np.flatnonzero(mask)
        chosen = np.random.default_rng(key).integers(len(flat), size=self.num_points)
        y, x = np.divmod(flat[chosen], mask.shape[1])
        return np.stack([x, y], 1)


@TRANSFORMS.register_module()
class PackGenSegInputs(BaseTransform):
    """Packs a sample for the models and metrics (see ``models/data_preprocessor.py`` for the contract).

    Required key: img, unless there are cached image_latents. Packed: ``inputs`` uint8 (3, H, W), (3, 0, 0) without
    img; ``data_samples`` an mmseg SegDataSample with ``gt_sem_seg``, ``gt_instance_map`` and what
    :class:`CachedEncodings` adds where present.

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
        'boxes',
        'ignore_background',
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

        sample = SegDataSample()
        for source, name, dtype in (
            ('gt_seg_map', 'gt_sem_seg', torch.uint8),
            ('gt_instance_map', 'gt_instance_map', torch.int64),
        ):
            if source in results:
                data = torch.from_numpy(np.ascontiguousarray(results[source])).to(dtype)
                sample.set_data({name: PixelData(data=data[None])})
        sample.set_data({key: results[key] for key in self.CACHED_KEYS if key in results})
        meta_keys = (*self.meta_keys, 'encoder_fingerprints', 'cached_text')
        sample.set_metainfo({key: results[key] for key in meta_keys if key in results})
        return dict(inputs=_pixels(results), data_samples=sample)


def _pixels(results: dict) -> torch.Tensor:
    if 'img' in results:
        return torch.from_numpy(np.ascontiguousarray(results['img'].transpose(2, 0, 1)))
    if 'image_latents' in results:
        return torch.zeros(3, 0, 0, dtype=torch.uint8)
    raise ValueError(
        f"the sample of {results.get('img_path', '?')!r} has neither img nor cached image_latents: put LoadImage or "
        'CachedEncodings before PackGenSegInputs'
    )
