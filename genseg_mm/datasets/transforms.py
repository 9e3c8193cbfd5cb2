"""Pipeline transforms: prompts, masks, instance maps, packing."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as mask_utils

from genseg_mm.registry import TRANSFORMS


def _decode_segmentation(segmentation: list | dict, height: int, width: int, where: str) -> np.ndarray:
    """Mask of one object, (H, W) bool: the OR of its COCO polygons, or its RLE."""
    if isinstance(segmentation, dict):
        rle = segmentation
        if isinstance(rle['counts'], list):
            rle = mask_utils.frPyObjects(rle, height, width)
        if tuple(rle['size']) != (height, width):
            raise ValueError(
                f'{where}: expected an RLE mask of size {(height, width)}, but got {tuple(rle["size"])}'
            )
        return mask_utils.decode(rle).astype(bool)
    if not segmentation or any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
        lengths = [len(polygon) for polygon in segmentation]
        raise ValueError(
            f'{where}: expected polygons of at least 3 points [x0, y0, x1, y1, x2, y2, ...], but got lengths {lengths}'
        )
    return mask_utils.decode(
        mask_utils.merge(mask_utils.frPyObjects(segmentation, height, width))
    ).astype(bool)


@TRANSFORMS.register_module()
class LoadReferringMask(BaseTransform):
    """Mask of the referred objects, at the original size.

    Required keys: segmentations (one COCO polygon list or RLE per object), height, width; or gt_seg_map already there.
    Added: gt_seg_map (H, W) uint8, 1 on the objects (OR of all parts: summed parts would make overlaps 2), seg_fields.
    """

    def transform(self, results: dict) -> dict:
        """Adds the mask."""
        results.setdefault('seg_fields', [])
        if 'gt_seg_map' not in results:
            height, width = results['height'], results['width']
            mask = np.zeros((height, width), bool)
            where = f'{results.get("img_path", "?")}, annotations {results.get("ann_ids", "?")}'
            for segmentation in results['segmentations']:
                mask |= _decode_segmentation(segmentation, height, width, where)
            results['gt_seg_map'] = mask.astype(np.uint8)
        if 'gt_seg_map' not in results['seg_fields']:
            results['seg_fields'].append('gt_seg_map')
        return results


@TRANSFORMS.register_module()
class LoadInstanceMap(BaseTransform):
    """Map of instance ids, at the original size.

    Sources, in this order: gt_instance_map already in the results; instance_map_path, a PNG (palette indices,
    8- or 16-bit grey, or RGB-coded ids as r * 65536 + g * 256 + b); instances in mmdet's form (polygons or
    RLE, later ones on top).
    Added: gt_instance_map (H, W) int32, 0 = background, seg_fields. Palette files are read as indices, not
    colours, and ids above 255 are kept.
    """

    def transform(self, results: dict) -> dict:
        """Adds the instance map."""
        if 'gt_instance_map' in results:
            instance_map = np.asarray(results['gt_instance_map'])
        elif 'instance_map_path' in results:
            instance_map = _read_instance_png(results['instance_map_path'])
        elif 'instances' in results:
            instance_map = self._from_instances(results)
        else:
            raise ValueError(
                "LoadInstanceMap needs 'gt_instance_map', 'instance_map_path' or 'instances' in the sample, "
                f'but got the keys {sorted(results)}'
            )
        expected = tuple(results.get('ori_shape', instance_map.shape))
        if instance_map.ndim != 2 or instance_map.shape != expected:
            source = results.get('instance_map_path', 'the sample')
            raise ValueError(
                f'instance map of {source}: expected the size of the image {results.get("img_path", "")} {expected}, '
                f'but got {instance_map.shape}'
            )
        results['gt_instance_map'] = instance_map.astype(np.int32)
        results.setdefault('seg_fields', [])
        if 'gt_instance_map' not in results['seg_fields']:
            results['seg_fields'].append('gt_instance_map')
        return results

    @staticmethod
    def _from_instances(results: dict) -> np.ndarray:
        height, width = results.get('ori_shape') or (results['height'], results['width'])
        instance_map = np.zeros((height, width), np.int32)
        kept = [own for own in results['instances'] if not own.get('ignore_flag', 0)]
        for number, instance in enumerate(kept, start=1):
            where = f'{results.get("img_path", "?")}, instance {number}'
            mask = _decode_segmentation(instance['mask'], height, width, where)
            instance_map[mask] = number
        return instance_map


def _read_instance_png(path: str) -> np.ndarray:
    if not Path(path).is_file():
        raise FileNotFoundError(f'no instance map at {path}')
    try:
        with Image.open(path) as image:
            array = np.array(image)  # palette images stay indices
            mode = image.mode
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f'{path}: expected a PNG of instance ids, but got {error}') from error
    if array.ndim == 3 and array.shape[2] == 3:
        red, green, blue = array.astype(np.int32).transpose(2, 0, 1)
        return red << 16 | green << 8 | blue
    if array.ndim != 2:
        raise ValueError(
            f'{path}: expected a palette, grey or RGB-coded instance map, but got mode {mode}'
        )
    return array


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

    Required key: img. Packed: ``inputs`` uint8 (3, H, W), ``data_samples`` an mmseg SegDataSample with
    ``gt_sem_seg`` and ``gt_instance_map`` where present.

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
        'task',
        'kind',
        'subset',
        'sample_idx',
        'ref_id',
        'sent_id',
        'ann_ids',
        'points',
        'point_labels',
        'point_ids',
        'ignore_background',
    )

    def __init__(self, meta_keys: Sequence[str] = META_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Packs the sample."""
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        image = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
        sample = SegDataSample()
        for source, name, dtype in (
            ('gt_seg_map', 'gt_sem_seg', torch.uint8),
            ('gt_instance_map', 'gt_instance_map', torch.int64),
        ):
            if source in results:
                data = torch.from_numpy(np.ascontiguousarray(results[source])).to(dtype)
                sample.set_data({name: PixelData(data=data[None])})
        sample.set_metainfo({key: results[key] for key in self.meta_keys if key in results})
        return dict(inputs=torch.from_numpy(image), data_samples=sample)
