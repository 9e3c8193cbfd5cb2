"""Maps of instances: loading, the instances of some classes, crops and permutations."""

from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform, RandomFlip
from mmcv.transforms.utils import cache_randomness
from pycocotools import mask as mask_utils

from genseg_mm.datasets.annotation_files import warn_counted
from genseg_mm.datasets.class_subsets import NYU40_CLASSES, class_list
from genseg_mm.datasets.instance_maps import as_ids, check_color_png, check_index_png, read_instance_map
from genseg_mm.datasets.segmentations import encode_segmentation, labels_to_instances, without_short_parts
from genseg_mm.registry import TRANSFORMS

INVALID = ('error', 'skip')


@TRANSFORMS.register_module()
class LoadInstanceMap(BaseTransform):
    """Map of instance ids, at the original size.

    Sources, in this order: gt_instance_map already in the results; instance_map_path, a PNG (palette indices,
    8- or 16-bit grey, or RGB-coded ids as r * 65536 + g * 256 + b; ids_are_indices in the results refuses colours,
    ids_are_colors everything else) or Hypersim's HDF5, whose values label_rule in the results makes instances of, where
    they are classes (see ``genseg_mm/datasets/segmentations.py``); instances in mmdet's form (mask: polygons, or RLE
    with counts as a list, str or bytes; ignore_flag), as ``genseg_mm.CocoInstanceDataset`` and ``mmdet.CocoDataset``
    give them.

    Added: gt_instance_map (H, W) int32, 0 = background, seg_fields. Palette files are read as indices, not
    colours, and ids above 255 are kept. Of instances, the n-th that takes part has id n, and instance_counts says
    what became of them: ``annotated``, ``crowd``, ``invalid``, and ``hidden`` (none of their pixels is in the map:
    others lie over them, or they cover no pixel centre). Regions of many (iscrowd, ignore_flag) are background: they
    hold several objects. Of two overlapping instances the one of fewer pixels (of equals the later) gets the pixel, so
    that the cup on the table stays: polygons of COCO have no depth, and those of large objects often run over what
    stands before them. Where they have ``ann_id`` and ``area``, map_ann_ids (M,) int64 and map_areas (M,) float64 hold
    those of id n at n - 1.

    Put it before Resize in training, after it in test. Resize with
    ``genseg_mm.AntialiasedResize``: mmcv's own passes gt_instance_map by, and mmseg's is half a pixel off.

    Args:
        invalid: What a segmentation of instances that cannot be decoded (missing, too few points, wrong size, damaged)
            means: an ``'error'``, or ``'skip'``: left out, counted and announced. Parts of one or two points have no
            area; 'skip' leaves them out of polygons, too.

    Raises:
        ValueError: If a setting is unknown, the source is missing, damaged or of another size than the image.
        FileNotFoundError: If instance_map_path does not exist.
    """

    def __init__(self, invalid: str = 'error') -> None:
        if invalid not in INVALID:
            raise ValueError(f'invalid must be one of {INVALID}, but got {invalid!r}')
        self.invalid, self.num_invalid = invalid, 0

    def transform(self, results: dict) -> dict:
        """Adds the instance map."""
        if 'gt_instance_map' in results:
            instance_map = np.asarray(results['gt_instance_map'])
        elif 'instance_map_path' in results:
            if results.get('ids_are_indices', False):
                check_index_png(results['instance_map_path'])
            if results.get('ids_are_colors', False):
                check_color_png(results['instance_map_path'])
            instance_map = read_instance_map(results['instance_map_path'])
            if 'label_rule' in results:
                where = results['instance_map_path']
                instance_map = labels_to_instances(instance_map, **results['label_rule'], where=where)
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
            turned = '; is one of them turned, as EXIF orientation turns photographs?'
            raise ValueError(
                f'instance map of {source}: expected the size of the image {results.get("img_path", "")} {expected}, '
                f'but got {instance_map.shape}{turned * (instance_map.shape == expected[::-1])}'
            )
        where = results.get('instance_map_path') or f'gt_instance_map of {results.get("img_path", "?")}'
        results['gt_instance_map'] = as_ids(instance_map, where)
        results.setdefault('seg_fields', [])
        if 'gt_instance_map' not in results['seg_fields']:
            results['seg_fields'].append('gt_instance_map')
        return results

    def _from_instances(self, results: dict) -> np.ndarray:
        height, width = results.get('ori_shape') or (results['height'], results['width'])
        masks, num_invalid = [], 0  # (id, RLE)
        taking_part = []
        for place, instance in enumerate(results['instances']):
            if instance.get('ignore_flag', 0):
                continue
            taking_part.append(instance)
            where = f'{results.get("img_path", "?")}, {_name(instance, place)}'
            rle, num_bad = self._encode(instance, height, width, where)
            num_invalid += num_bad
            if rle is not None:
                masks.append((len(taking_part), rle))
        masks.sort(key=lambda own: -int(mask_utils.area(own[1])))  # stable
        instance_map = np.zeros((height, width), np.int32)
        for number, rle in masks:
            # Only inside of its box: to compare and write whole pictures takes longer than to decode.
            x, y, box_width, box_height = mask_utils.toBbox(rle).astype(int)
            box = slice(y, y + box_height), slice(x, x + box_width)
            instance_map[box][mask_utils.decode(rle)[box] > 0] = number
        for name, key, dtype in (('map_ann_ids', 'ann_id', np.int64), ('map_areas', 'area', np.float64)):
            if all(key in instance for instance in taking_part):
                results[name] = np.array([instance[key] for instance in taking_part], dtype)
        results['instance_counts'] = dict(
            annotated=len(results['instances']),
            crowd=len(results['instances']) - len(taking_part),
            invalid=num_invalid,
            hidden=len(masks) - np.count_nonzero(np.bincount(instance_map.reshape(-1))[1:]),
        )
        return instance_map

    def _encode(self, instance: dict, height: int, width: int, where: str) -> tuple[dict | None, int]:
        """RLE of an instance (None: left out), and 1 if there was something wrong with it."""
        segmentation, num_short = instance.get('mask', []), 0
        if self.invalid == 'skip':
            segmentation, num_short = without_short_parts(segmentation)
        try:
            rle = encode_segmentation(segmentation, height, width, where)
        except ValueError as error:
            if self.invalid == 'error':
                raise ValueError(f"{error}; invalid='skip' leaves such instances out") from error
            self._announce(f'left out: {error}')
            return None, 1
        if num_short:
            self._announce(f'{where}: left out {num_short} polygons of fewer than 3 points')
        return rle, int(num_short > 0)

    def _announce(self, what: str) -> None:
        self.num_invalid += 1
        warn_counted(f'LoadInstanceMap: {what}', self.num_invalid, 'invalid')

    def __repr__(self) -> str:
        return f'{type(self).__name__}(invalid={self.invalid!r})'


def _name(instance: dict, place: int) -> str:
    if 'ann_id' in instance:
        return f'annotation {instance["ann_id"]}'
    return f'instance {place + 1}'


@TRANSFORMS.register_module()
class KeepClasses(BaseTransform):
    """Makes background of the instances whose semantic id is not in the list.

    An instance has the semantic id that most of its pixels have (the smallest of equals). Needed: gt_instance_map at
    the original size (right after ``LoadInstanceMap``), and semantic_map (H, W) or semantic_map_path, a PNG or
    Hypersim's ``frame.IIII.semantic.hdf5`` (NYU40 ids; -1 reads as 0, no label). Modified: gt_instance_map; its ids
    stay as they are. COCO needs none of this: ``CocoInstanceDataset(classes=[...])``.

    Args:
        classes: Semantic ids or NYU40 names to keep, or ``'hypersim_10'`` or ``'hypersim_5'``, the lists of
            ``genseg_mm/datasets/class_subsets.py``.

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


@TRANSFORMS.register_module()
class RandomInstanceCrop(BaseTransform):
    """Crops at random, but never to background alone where that can be helped.

    The reference draws a crop anew while its instance map is all background, up to 1000 times. The result of that is
    uniform over the crops that show an instance, and is drawn here at once: an integral image tells which ones do.
    A map that has no instance gets any crop, as the reference does after its 1000 tries; such samples are counted in
    ``num_empty`` of each process and announced when that is 1, 10, 100, ...; ``empty`` of the dataset may refuse them.

    Draws from numpy's global generator, as the transforms of MMCV do; ``SeededAccess`` sets it for each sample.

    Required keys: img, gt_instance_map. Modified: img, img_shape and the maps in seg_fields. Points are not moved:
    draw them afterwards.

    Args:
        crop_size: (height, width).

    Raises:
        ValueError: If the image is smaller than the crop, or if there are points already.
    """

    def __init__(self, crop_size: Sequence[int]) -> None:
        if len(crop_size) != 2 or not all(isinstance(n, int) and n > 0 for n in crop_size):
            raise ValueError(f'crop_size must be (height, width) in pixels, but got {crop_size!r}')
        self.crop_size = tuple(crop_size)
        self.num_empty = 0

    @cache_randomness
    def _draw(self, count: int) -> int:
        return int(np.random.randint(count))

    def transform(self, results: dict) -> dict:
        """Crops one sample."""
        if 'gt_instance_map' not in results:
            raise ValueError('RandomInstanceCrop needs gt_instance_map: put LoadInstanceMap before it')
        if 'points' in results:
            raise ValueError('RandomInstanceCrop does not move points: put PointPrompt after it')
        image, instance_map = results['img'], results['gt_instance_map']
        height, width = self.crop_size
        if image.shape[:2] != instance_map.shape:
            raise ValueError(
                f'{_source(results)}: expected an instance map of the size of the image {image.shape[:2]}, but got '
                f'{instance_map.shape}'
            )
        if image.shape[0] < height or image.shape[1] < width:
            raise ValueError(
                f'{_source(results)}: expected an image of at least the crop_size {self.crop_size} (height, width), '
                f'but got {image.shape[:2]}: choose a smaller crop, or put a Resize before it'
            )
        num_pixels = instance_pixels(instance_map, self.crop_size)
        allowed = np.flatnonzero(num_pixels)
        if len(allowed):
            corner = allowed[self._draw(len(allowed))]
        else:
            self.num_empty += 1
            warn_counted(
                f'RandomInstanceCrop: there is no instance in {_source(results)}; it is cropped anywhere',
                self.num_empty,
            )
            corner = self._draw(num_pixels.size)
        top, left = np.unravel_index(corner, num_pixels.shape)
        window = slice(top, top + height), slice(left, left + width)
        for key in {'img', 'gt_instance_map', *results.get('seg_fields', ())} & results.keys():
            results[key] = np.ascontiguousarray(results[key][window])
        results['img_shape'] = self.crop_size
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(crop_size={self.crop_size})'


@TRANSFORMS.register_module()
class RandomInstanceFlip(RandomFlip):
    """``mmcv.RandomFlip`` that flips every map of ``seg_fields``, as mmseg's does, which needs compiled operators.

    Its draws are those of mmseg's. Masks of mmdet (``gt_masks``) are not flipped: make maps of them first.

    Args:
        prob: As of mmcv's: of a flip, or of each direction.
        direction: 'horizontal', 'vertical', 'diagonal', or a list of these.
    """

    def _flip(self, results: dict) -> None:
        super()._flip(results)
        for key in results.get('seg_fields', ()):
            if key != 'gt_seg_map' and results.get(key) is not None:
                results[key] = self._flip_seg_map(results[key], results['flip_direction']).copy()


def instance_pixels(instance_map: np.ndarray, crop_size: Sequence[int]) -> np.ndarray:
    """Pixels of instances that each crop shows.

    Args:
        instance_map: Ids, (H, W), 0 = background.
        crop_size: (height, width).

    Returns:
        (H - height + 1, W - width + 1) int32; entry [top, left] belongs to the crop with that corner.
    """
    height, width = crop_size
    sums = cv2.integral((instance_map > 0).astype(np.uint8))  # (H + 1, W + 1)
    return sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]


def _source(results: dict) -> str:
    return results.get('instance_map_path') or results.get('img_path') or 'the sample'


@TRANSFORMS.register_module()
class RandomScenePermute(BaseTransform):
    """Transposes a scene and permutes its colour channels at random, for the instance task.

    Draws from numpy's global generator, as the transforms of MMCV do; ``SeededAccess`` sets it for
    each sample.

    Required key: img. Modified: img, the maps in seg_fields, gt_instance_map, gt_seg_map and points
    where present.

    Args:
        transpose_prob: Probability of swapping height and width.
        channel_prob: Probability of a random order of the colour channels (which may be the old
            one).

    Raises:
        ValueError: For samples with a text, whose words would no longer be true; and for a
            transposition of an image that is not square, because the samples of a batch must have
            one size.
    """

    def __init__(self, transpose_prob: float = 0.5, channel_prob: float = 1.0) -> None:
        for name, prob in (('transpose_prob', transpose_prob), ('channel_prob', channel_prob)):
            if not 0 <= prob <= 1:
                raise ValueError(f'RandomScenePermute: {name} must be in [0, 1], but got {prob!r}')
        self.transpose_prob, self.channel_prob = transpose_prob, channel_prob

    @cache_randomness
    def _draw(self) -> tuple[bool, np.ndarray]:
        transpose = np.random.rand() < self.transpose_prob
        permute = np.random.rand() < self.channel_prob
        return transpose, np.random.permutation(3) if permute else np.arange(3)

    def transform(self, results: dict) -> dict:
        """Permutes the axes of one sample."""
        if 'text' in results:
            raise ValueError(
                'RandomScenePermute changes places and colours, so it needs a sample without text, '
                f'but got {results["text"]!r}: use it with task="instance"'
            )
        image = results['img']
        if self.transpose_prob and image.shape[0] != image.shape[1]:
            raise ValueError(
                'RandomScenePermute: a transposition needs a square image, '
                f'but got {image.shape[:2]}: set transpose_prob=0'
            )
        transpose, order = self._draw()
        image = image[..., order]
        if transpose:
            image = image.swapaxes(0, 1)
            maps = {'gt_seg_map', 'gt_instance_map', *results.get('seg_fields', ())}
            for key in maps & results.keys():
                results[key] = np.ascontiguousarray(results[key].T)
            if 'points' in results:
                results['points'] = np.ascontiguousarray(results['points'][..., ::-1])
        results['img'] = np.ascontiguousarray(image)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(transpose_prob={self.transpose_prob}, channel_prob={self.channel_prob})'
