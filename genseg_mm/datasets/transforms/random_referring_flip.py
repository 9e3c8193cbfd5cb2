"""Mirrored pictures whose expressions still say the right side."""

import re
from collections.abc import Iterable

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform

from genseg_mm.registry import TRANSFORMS

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


def _any_of(words: Iterable[str]) -> re.Pattern:
    choice = '|'.join(map(re.escape, sorted(words, key=len, reverse=True)))
    # No letter or digit on either side; '_' and '-' divide words.
    return re.compile(rf'(?<![^\W_])(?:{choice})(?![^\W_])', re.IGNORECASE)


_MIRRORED, _KEPT = _any_of(MIRRORED), _any_of(KEPT_WORDS)
_STREAM = 7  # keeps these draws apart from those of the sentence, which has the same seed, index and visit
_UNMIRRORED = (
    'points', 'boxes', 'gt_masks', 'gt_bboxes', 'image_latents', 'mask_latents', 'prompt_states', 'expression',
)  # fmt: skip


@TRANSFORMS.register_module()
class RandomReferringFlip(BaseTransform):
    """Mirrors picture and mask horizontally and exchanges left and right in the text.

    Words are exchanged as wholes ('bright' and 'copyright' stay, 'left-hand' becomes 'right-hand'), all at once
    ('left of the right man' becomes 'right of the left man'), and keep their case ('LEFT', 'Left'). A text without
    such words stays as it is. Texts with one of ``KEPT_WORDS`` are never mirrored. What the words mean is not looked
    at: 'right now', 'right behind' or 'what is left' are exchanged as well, which leaves the mask right and the text
    odd; writing on things (numbers on shirts) is mirrored.

    It goes after LoadReferringMask and UseDescriptions and before TextPrompt, in training only. The draw is seeded by
    (seed, sample, visit), so that it depends neither on workers nor on a restart; give data sets that are mixed
    different seeds.

    Required keys: img, gt_seg_map, text, sample_idx, visit (of our data sets in training). Modified: img, gt_seg_map,
    gt_instance_map if present, text. Added: flip, flip_direction ('horizontal' or None).

    Args:
        prob: Probability of mirroring.
        seed: See above.

    Raises:
        ValueError: If prob is none, a key is missing, or the sample holds something that this cannot mirror.
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
                'LoadReferringMask, and needs one of our data sets with test_mode=False'
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
