"""What a sentence is called in sample results, and the groups that it belongs to."""

import os
from collections.abc import Mapping
from typing import Any

GROUPS = ('kind', 'length', 'subset', 'words')
_BANDS = ((2, '1-2 words'), (5, '3-5 words'), (8, '6-8 words'))


def item_name(sample: Mapping[str, Any]) -> str | None:
    """``'<subset>/<picture>#<sentence>'``, e.g. ``'val/COCO_train2014_000000000009.jpg#sent 12'``.

    It depends on the data set alone, not on the model, the machine or the place of the files. The subset is left out
    where there is none; a picture without a file is called by its ``img_id``, a sentence without a ``sent_id`` by its
    words.

    Args:
        sample: A data sample's metainfo.

    Returns:
        The name; None if neither ``img_path`` nor ``img_id`` is there.
    """
    picture = os.path.basename(sample.get('img_path') or '') or sample.get('img_id')
    if picture is None:
        return None
    subset = sample.get('subset')
    place = f'{subset}/{picture}' if subset else f'{picture}'
    place = place.replace('#', '%23')  # the first '#' ends the picture
    number, words = sample.get('sent_id'), _expression(sample)
    if number is not None:
        return f'{place}#sent {number}'
    return f'{place}#text {words}' if words else place


def groups_of(sample: Mapping[str, Any]) -> dict[str, str]:
    """The sample's values of ``kind``, ``length``, ``subset`` and ``words``, as far as it has them."""
    found = {key: sample[key] for key in GROUPS[:3] if isinstance(sample.get(key), str)}
    words = _expression(sample)
    return dict(found, words=word_band(words)) if words else found


def word_band(text: str) -> str:
    """'1-2 words', '3-5 words', '6-8 words' or '9+ words', by the blanks in a text."""
    number = len(text.split())
    return next((band for most, band in _BANDS if number <= most), '9+ words')


def _expression(sample: Mapping[str, Any]) -> str:
    """The data set's own words, without what ``UseDescriptions`` and ``TextPrompt`` make of them."""
    texts = (sample.get(key) for key in ('question', 'expression', 'text'))
    return next((text for text in texts if isinstance(text, str) and text), '')
