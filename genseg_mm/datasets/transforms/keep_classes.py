"""Instances of some classes only, by a map of semantic ids beside the map of instances."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from genseg_mm.datasets.counted_warning import warn_counted
from genseg_mm.datasets.instances.class_subsets import NYU40_CLASSES, class_list
from genseg_mm.datasets.instances.instance_map_files import read_instance_map
from genseg_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class KeepClasses(BaseTransform):
    """Makes background of the instances whose semantic id is not in the list.

    An instance has the semantic id that most of its pixels have (the smallest of equals). Needed: gt_instance_map at
    the original size (right after ``LoadInstanceMap``), and semantic_map (H, W) or semantic_map_path, a PNG or
    Hypersim's ``frame.IIII.semantic.hdf5`` (NYU40 ids; -1 reads as 0, no label). Modified: gt_instance_map; its ids
    stay as they are. COCO needs none of this: ``CocoInstanceDataset(classes=[...])``.

    Args:
        classes: Semantic ids or NYU40 names to keep, or ``'hypersim_10'`` or ``'hypersim_5'``, the lists of
            ``genseg_mm/datasets/instances/class_subsets.py``.

    Raises:
        ValueError: If a class is unknown, no semantic map is given, or it is not of the instance map's size.
        FileNotFoundError: If semantic_map_path does not exist.
    """

    def __init__(self, classes: str | Sequence[int | str]) -> None:
        numbers = {name: number for number, name in enumerate(NYU40_CLASSES, start=1)}
        classes = [numbers.get(own, own) for own in class_list(classes, 'hypersim')]
        unknown = [own for own in classes if not isinstance(own, int)]
        if unknown:
            raise ValueError(f'classes must be semantic ids or names of NYU40 {NYU40_CLASSES}, but got {unknown}')
        self.classes = sorted(classes)
        self.num_empty = 0

    def transform(self, results: dict) -> dict:
        """Drops instances."""
        if 'gt_instance_map' not in results:
            raise ValueError('KeepClasses needs gt_instance_map: put LoadInstanceMap before it')
        instances = results['gt_instance_map']
        semantic = self._semantic_map(results)
        if semantic.shape != instances.shape:
            raise ValueError(
                f'{results.get("semantic_map_path", "semantic_map")}: expected the size of the instance map '
                f'{instances.shape}, but got {semantic.shape}; put KeepClasses right after LoadInstanceMap'
            )
        ids, places = np.unique(instances, return_inverse=True)
        classes, labels = np.unique(semantic, return_inverse=True)
        counts = np.bincount(places.ravel() * len(classes) + labels.ravel(), minlength=len(ids) * len(classes)).reshape(
            len(ids), len(classes)
        )
        kept = np.isin(classes[counts.argmax(1)], self.classes)
        results['gt_instance_map'] = np.where(kept, ids, 0)[places].reshape(instances.shape)
        results['gt_instance_map'] = results['gt_instance_map'].astype(instances.dtype)
        if not results['gt_instance_map'].any():
            self._note_empty(results)
        return results

    @staticmethod
    def _semantic_map(results: dict) -> np.ndarray:
        if 'semantic_map' in results:
            return np.asarray(results['semantic_map'])
        if 'semantic_map_path' in results:
            return read_instance_map(results['semantic_map_path'])
        raise ValueError(
            'KeepClasses needs semantic_map_path (or semantic_map) in the sample, of Hypersim the '
            f'frame.IIII.semantic.hdf5 beside the instance file, but got the keys {sorted(results)}'
        )

    def _note_empty(self, results: dict) -> None:
        self.num_empty += 1
        warn_counted(
            f'KeepClasses: no instance of the classes {self.classes} in {results.get("img_path", "the sample")}',
            self.num_empty,
            'such samples',
        )

    def __repr__(self) -> str:
        return f'{type(self).__name__}(classes={self.classes})'
