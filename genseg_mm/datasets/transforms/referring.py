"""Referring samples: mask and text, mirrored both together, and refined descriptions in place of questions."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform

from genseg_mm.datasets.annotation_files import warn_counted
from genseg_mm.datasets.instance_maps import read_instance_map
from genseg_mm.datasets.reason_seg import draw_shapes
from genseg_mm.datasets.row_masks import draw_row_mask
from genseg_mm.datasets.segmentations import decode_segmentation
from genseg_mm.files import check_texts, has_lone_surrogate, read_json
from genseg_mm.files.whole_files import whole_file
from genseg_mm.registry import TRANSFORMS

CHECKED = 'mask_values_checked'
WAYS_OUT = (
    '255 means ignored here: a black-and-white mask is read by LoadReferringMask(white=255), or written as 0 and 1; '
    'one that is really ignored wherever it is not 0 has no object to learn from: leave it out'
)
TOOL = 'tools/dataset_tools/write_descriptions.py CONFIG'
WORD_PAIRS = (
    ('left', 'right'),
    ('leftmost', 'rightmost'),
    ('leftest', 'rightest'),
    ('leftward', 'rightward'),
    ('leftwards', 'rightwards'),
    ('lefthand', 'righthand'),
    ('lefts', 'rights'),
)
MIRRORED = dict(WORD_PAIRS) | {second: first for first, second in WORD_PAIRS}
# Sides that have no mirrored word here, or several: abbreviations and turns.
KEPT_WORDS = ('lft', 'rt', 'rgt', 'rite', 'l', 'r', 'clockwise', 'counterclockwise', "o'clock")
_STREAM = 7  # keeps these draws apart from those of the sentence, which has the same seed, index and visit
_UNMIRRORED = (
    'points', 'boxes', 'gt_masks', 'gt_bboxes', 'image_latents', 'mask_latents', 'prompt_states', 'expression',
)  # fmt: skip


def _any_of(words: Iterable[str]) -> re.Pattern:
    choice = '|'.join(map(re.escape, sorted(words, key=len, reverse=True)))
    # No letter or digit on either side; '_' and '-' divide words.
    return re.compile(rf'(?<![^\W_])(?:{choice})(?![^\W_])', re.IGNORECASE)


_MIRRORED, _KEPT = _any_of(MIRRORED), _any_of(KEPT_WORDS)


@TRANSFORMS.register_module()
class LoadReferringMask(BaseTransform):
    """Mask of the referred objects, at the original size.

    Required keys: segmentations (one COCO polygon list or RLE per object), height, width; or shapes and ignore_label
    (ReasonSeg) and ori_shape, the size of the decoded picture; or row_mask (``ReferringDataset``) and ori_shape; or
    gt_seg_map already there; or seg_map_path, a PNG of one channel with 0, 1 and 255 = ignored (as mmseg's datasets
    give it).
    Added: gt_seg_map (H, W) uint8, 1 on the objects (OR of all parts: summed parts would make overlaps 2), 255 where
    regions are to be ignored (of ReasonSeg and of rows); seg_fields.

    In training it stands before Resize, which then resizes the mask too; in test after it: the mask stays as it is.

    Args:
        white: The value that means 'on the objects' in gt_seg_map or seg_map_path. An ordinary black-and-white picture
            of a mask holds 0 and 255: ``white=255`` reads it, and then nothing is ignored.

    Raises:
        ValueError: If a mask that was given holds other values than 0, ``white`` and 255, or 255 and no 1: it could be
            black and white, or ignored nearly everywhere. It names the file and both ways out.
        FileNotFoundError: If seg_map_path does not exist.
    """

    def __init__(self, white: int = 1) -> None:
        if isinstance(white, bool) or not isinstance(white, int) or not 1 <= white <= 255:
            raise ValueError(f'white must be a value from 1 to 255, but got {white!r}')
        self.white = white

    def transform(self, results: dict) -> dict:
        """Adds the mask."""
        results.setdefault('seg_fields', [])
        if 'gt_seg_map' in results:
            results['gt_seg_map'] = self._read(np.asarray(results['gt_seg_map']), results)
        elif 'shapes' in results:
            results['gt_seg_map'] = _draw_reasoning_mask(results)
        elif 'row_mask' in results:
            results['gt_seg_map'] = draw_row_mask(results)
        elif 'segmentations' not in results and 'seg_map_path' in results:
            mask = read_instance_map(results['seg_map_path'])
            results['gt_seg_map'] = self._read(mask, results)
        else:
            results['gt_seg_map'] = _draw_referring_mask(results)
        results[CHECKED] = True  # what comes later, crops among it, changes what a mask holds
        if 'gt_seg_map' not in results['seg_fields']:
            results['seg_fields'].append('gt_seg_map')
        return results

    def _read(self, mask: np.ndarray, results: dict) -> np.ndarray:
        """A mask that was given, in {0, 1, 255 = ignored}."""
        where = mask_file(results)
        if self.white != 1:
            wrong = mask[(mask != 0) & (mask != self.white)]
            if wrong.size:
                raise ValueError(f'{where}: expected 0 and white={self.white}, but got {wrong[0]} as well')
            return (mask == self.white).astype(np.uint8)
        if not results.get(CHECKED):
            check_mask_values(mask, where)
        return mask.astype(np.uint8)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(white={self.white})'


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


def check_mask_values(mask: np.ndarray, where: str) -> None:
    """Refuses a mask that may be a black-and-white picture, or no mask at all.

    Args:
        mask: (H, W) or (1, H, W), whole numbers.
        where: The file, for the message.

    Raises:
        ValueError: If it holds other values than 0, 1 and 255, or 255 and no 1.
    """
    has_object, ignored = mask == 1, mask == 255
    wrong = mask[(mask != 0) & ~has_object & ~ignored]
    if wrong.size:
        raise ValueError(f'{where}: expected a mask of 0, 1 and 255 (ignored), but got {wrong[0]}')
    if ignored.any() and not has_object.any():
        raise ValueError(f'{where}: expected a mask with 1 on the object, but got 255 and no 1; {WAYS_OUT}')


def mask_file(results: dict) -> str:
    """The file that a sample's mask came from, for messages."""
    return str(results.get('seg_map_path') or f'mask of {results.get("img_path", "?")}')


@TRANSFORMS.register_module()
class RandomReferringFlip(BaseTransform):
    """Mirrors picture and mask horizontally and exchanges left and right in the text.

    Words are exchanged as wholes ('bright' and 'copyright' stay, 'left-hand' becomes 'right-hand'), all at once
    ('left of the right man' becomes 'right of the left man'), and keep their case ('LEFT', 'Left'). A text without
    such words stays as it is. Texts with one of ``KEPT_WORDS`` are never mirrored. What the words mean is not looked
    at: 'right now', 'right behind' or 'what is left' are exchanged as well, which leaves the mask right and the text
    odd; writing on things (numbers on shirts) is mirrored.

    It goes after LoadReferringMask and UseDescriptions and before TextPrompt, in training only. The draw is seeded by
    (seed, sample, visit), so that it depends neither on workers nor on a restart; give datasets that are mixed
    different seeds.

    Required keys: img, gt_seg_map, text, sample_idx, visit (of our datasets in training). Modified: img, gt_seg_map,
    gt_instance_map if present, text. Added: flip, flip_direction ('horizontal' or None).

    Args:
        prob: Probability of mirroring.
        seed: See above.

    Raises:
        ValueError: If prob is no probability, a key is missing, or the sample holds something that this cannot mirror.
    """

    def __init__(self, prob: float = 0.5, seed: int = 0) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'prob must lie in [0, 1], but got {prob}')
        self.prob, self.seed = prob, seed

    def transform(self, results: dict) -> dict:
        """Mirrors the sample, or not."""
        where = results.get('img_path', '?')
        lacking = {'img', 'gt_seg_map', 'text', 'sample_idx', 'visit'} - set(results)
        if lacking:
            raise ValueError(
                f'RandomReferringFlip lacks {sorted(lacking)} of {where}: it goes after LoadImage and '
                'LoadReferringMask, and needs one of our datasets with test_mode=False'
            )
        present = [key for key in _UNMIRRORED if results.get(key) is not None]
        if present:
            raise ValueError(
                f'RandomReferringFlip cannot mirror {present} of {where}: it goes before TextPrompt, and neither '
                'prompts nor cached encodings may be there'
            )
        key = [self.seed, _STREAM, int(results['sample_idx']), int(results['visit'])]
        flip = np.random.default_rng(key).random() < self.prob
        flip = bool(flip and not _KEPT.search(results['text']))
        results.update(flip=flip, flip_direction='horizontal' if flip else None)
        if flip:
            results['text'] = self.swap(results['text'])
            for name in ('img', 'gt_seg_map', 'gt_instance_map'):
                if name in results:
                    results[name] = mmcv.imflip(results[name], 'horizontal')
        return results

    def swap(self, text: str) -> str:
        """The text of the mirrored picture."""
        return _MIRRORED.sub(_other, text)


def _other(found: re.Match) -> str:
    word = found[0]
    other = MIRRORED[word.lower()]
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other


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
        check_texts([text], f'the text of {results.get("img_path", "?")!r}')
        text = text.strip().lower() if self.lower else text
        results['expression'] = text
        results['text'] = self.template.format(text)
        return results


@TRANSFORMS.register_module()
class UseDescriptions(BaseTransform):
    """Replaces the text by the description that a vision-language model wrote for it.

    Belongs right after the loading, before ``TextPrompt``: descriptions are found by the text as the files have it.

    Required keys: text, and img_path or (drawn scenes) img as the dataset gives it. Modified: text. Added: question,
    the text as it was.

    Args:
        file: Written by ``tools/dataset_tools/write_descriptions.py``.
        missing: What to do with a text that has no description: 'error', or 'keep' the text, with a counted warning.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file or ``missing`` is wrong, or (at use) a description is missing.
    """

    def __init__(self, file: str, missing: str = 'error') -> None:
        if missing not in ('error', 'keep'):
            raise ValueError(f"missing must be 'error' or 'keep', but got {missing!r}")
        self.file, self.missing, self.num_missing = file, missing, 0
        self.descriptions = DescriptionFile.read(file)

    def transform(self, results: dict) -> dict:
        """Replaces the text."""
        text = results.get('text')
        if not isinstance(text, str):
            raise ValueError(
                f"UseDescriptions needs a string 'text' in the sample of {results.get('img_path', '?')!r}, "
                f'but got {text!r}'
            )
        picture = picture_name(results)
        description = self.descriptions.get(picture, text)
        if description is None:
            message = f'{self.file} has no description of {text!r} for picture {picture!r}'
            if self.missing == 'error':
                raise ValueError(
                    f'{message}: complete it with {TOOL} {self.file}; UseDescriptions must stand before TextPrompt, '
                    "which changes the text; missing='keep' takes the text itself"
                )
            self.num_missing += 1
            warn_counted(message, self.num_missing, 'missing descriptions')
        results['question'] = text
        results['text'] = text if description is None else description
        return results


class DescriptionFile:
    """Descriptions of (picture, text) pairs and the settings of the model that wrote them.

    Written once by tools/dataset_tools/write_descriptions.py, read by :class:`UseDescriptions`. JSON: ``{"writer":
    settings, "descriptions": {picture: {text: description}}}``. A picture is named by its file and the folder that this
    lies in (``val/1000.jpg``: splits may use a name twice), so the data may move as a whole; without a file by its
    pixels, since scenes of several datasets have the same ids.

    Args:
        path: The file.
        writer: Settings of the writer, plain JSON values.
        descriptions: Descriptions by picture and text.
    """

    def __init__(self, path: str | Path, writer: Mapping, descriptions: dict[str, dict[str, str]]) -> None:
        self.path, self.writer, self.descriptions = Path(path), dict(writer), descriptions

    @classmethod
    def read(cls, path: str | Path) -> 'DescriptionFile':
        """Reads a file.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is of another form.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(f'no file of descriptions {path}: write it with {TOOL} {path}')
        expected = '{"writer": {...}, "descriptions": {picture: {text: description}}}'
        content = read_json(path)
        if not _is_content(content):
            raise ValueError(f'{path}: expected JSON of {expected}, but got other entries')
        return cls(path, content['writer'], content['descriptions'])

    @classmethod
    def resume(cls, path: str | Path, writer: Mapping) -> 'DescriptionFile':
        """The file if it was begun by the same writer, or a new one.

        Raises:
            ValueError: If another writer began it.
        """
        writer = json.loads(json.dumps(writer))
        if not os.path.exists(path):
            return cls(path, writer, {})
        file = cls.read(path)
        other = [key for key in {**file.writer, **writer} if file.writer.get(key) != writer.get(key)]
        if other:
            changes = ', '.join(f'{key} {file.writer.get(key)!r} there and {writer.get(key)!r} now' for key in other)
            raise ValueError(
                f'{path} was written with other settings: {changes}. Delete it to write all descriptions anew, or name '
                'another file'
            )
        return file

    def __len__(self) -> int:
        return sum(map(len, self.descriptions.values()))

    def get(self, picture: str, text: str) -> str | None:
        """The description, None if there is none."""
        return self.descriptions.get(picture, {}).get(text)

    def add(self, picture: str, text: str, description: str) -> None:
        """Adds or replaces a description."""
        self.descriptions.setdefault(picture, {})[text] = description

    def save(self) -> None:
        """Writes the file whole or not at all."""
        content = dict(writer=self.writer, descriptions=self.descriptions)
        with whole_file(self.path) as part:
            part.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding='utf-8')


def picture_name(item: Mapping) -> str:
    """How the file names the picture of a dataset item.

    Raises:
        ValueError: If the item has neither ``img_path`` nor ``img``.
    """
    if item.get('img_path'):
        return '/'.join(Path(item['img_path']).parts[-2:])
    if 'img' not in item:
        raise ValueError(f"expected an item with 'img_path' or 'img', but got {sorted(item)}")
    head = f'{item["img"].dtype}{item["img"].shape}'.encode()
    return hashlib.sha256(head + item['img'].tobytes()).hexdigest()[:16]


def _is_content(content: object) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get('writer'), dict):
        return False
    descriptions = content.get('descriptions')
    return isinstance(descriptions, dict) and all(
        isinstance(own, dict) and all(isinstance(text, str) and not has_lone_surrogate(text) for text in own.values())
        for own in descriptions.values()
    )
