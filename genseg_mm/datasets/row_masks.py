"""Masks as rows of one's own tables say them: a file, polygons or an RLE, and what of the picture is to be ignored.

A row becomes plain data, which ``LoadReferringMask`` draws at the size of the decoded picture.
"""

import os
from collections.abc import Mapping, Sequence
from reprlib import repr as short_repr
from typing import Any

import numpy as np

from genseg_mm.datasets.annotation_files import is_integer, is_number
from genseg_mm.datasets.instance_maps import read_instance_map
from genseg_mm.datasets.segmentations import decode_segmentation
from genseg_mm.files import parse_json

IGNORED = 255  # of the masks that are made here
MASK_VALUES = ('0/1', '0/255', 'index')
_BINARY = {'0/1': 1, '0/255': 255}
WHITE = (0xFFFF, 0xFFFFFF)  # of a black-and-white mask that was saved in 16 bits or as RGB
_SHOWN = 8  # values in a message


def row_mask(
    mask: Any,
    ignore: Any,
    index: Any,
    values: str | None,
    where: str,
    allow_no_target: bool,
) -> tuple[dict, str | None]:
    """What a row says of its mask, checked as far as that goes without opening a file.

    Args:
        mask: Path of a mask file; COCO polygons ``[[x0, y0, x1, y1, ...], ...]``, one of them alone, or points
            ``[[x, y], ...]``; or an RLE dict. Polygons and RLE may be JSON in a text, as cells of a csv are. None and
            '' mean that nothing is there.
        ignore: What of the picture does not count: polygons or an RLE; with ``'index'`` also values of the mask file;
            None and '' nothing.
        index: With ``'index'``, the value or values of the mask file that are meant.
        values: What mask files hold, one of ``MASK_VALUES``.
        where: File and row, for messages.
        allow_no_target: Whether a mask may be empty.

    Returns:
        Plain data for :func:`draw_row_mask`: ``where``, ``allow_no_target``, ``segmentation``, or of a file ``values``,
        ``target`` and ``ignored_values``; ``ignore`` where there is one. And the name of the file, if it is one.

    Raises:
        ValueError: If it is none of these; names ``where``.
    """
    mask, ignore = _read_cell(mask, f'{where}: mask'), _read_cell(ignore, f'{where}: ignore')
    row: dict[str, Any] = dict(where=where, allow_no_target=allow_no_target)
    name = None
    if _is_missing(mask):
        if not allow_no_target:
            raise ValueError(
                f'{where}: expected a mask, but got {short_repr(mask)}; allow_no_target=True takes it for a sentence '
                'about nothing that is there'
            )
        row['segmentation'] = []
    elif isinstance(mask, str):
        name, row['values'] = mask, _checked_values(values, mask, where)
        if values == 'index':
            row['target'] = _whole_numbers(_read_cell(index, f'{where}: index'), f'{where}: index')
    elif isinstance(mask, (list, dict)):
        row['segmentation'] = as_segmentation(mask, f'{where}: mask')
    else:
        raise ValueError(f'{where}: expected a mask file, polygons or an RLE, but got {short_repr(mask)}')
    if _is_missing(ignore) or ignore is False:
        return row, name
    if is_integer(ignore) or (isinstance(ignore, list) and all(map(is_integer, ignore))):
        if row.get('values') != 'index':
            raise ValueError(
                f"{where}: ignore may name values of a mask file with mask_values='index', but got {short_repr(ignore)}"
            )
        row['ignored_values'] = _whole_numbers(ignore, f'{where}: ignore')
        return row, name
    if not isinstance(ignore, (list, dict)):
        raise ValueError(
            f'{where}: ignore must be polygons or an RLE of what does not count, but got {short_repr(ignore)}'
        )
    row['ignore'] = as_segmentation(ignore, f'{where}: ignore')
    return row, name


def as_segmentation(value: list | dict, where: str) -> list | dict:
    """Polygons as COCO has them, of the forms that people write; an RLE stays as it is.

    Raises:
        ValueError: If it is none of the forms.
    """
    if isinstance(value, dict):
        if not {'size', 'counts'} <= set(value):
            raise ValueError(f'{where}: expected an RLE with size and counts, but got {short_repr(value)}')
        return value
    if value and all(map(is_number, value)):
        value = [value]
    if value and all(_is_point(point) for point in value):
        value = [value]
    polygons = [
        [number for point in polygon for number in point]
        if isinstance(polygon, list) and polygon and all(map(_is_point, polygon))
        else polygon
        for polygon in value
    ]
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not all(map(is_number, polygon)):
            raise ValueError(
                f'{where}: expected polygons of at least 3 points, [[x0, y0, x1, y1, x2, y2, ...], ...], but got '
                f'{short_repr(polygon)}'
            )
    return polygons


def draw_row_mask(results: Mapping) -> np.ndarray:
    """The mask of a row, at the size of the decoded picture.

    Args:
        results: ``row_mask`` of :func:`row_mask`, ``mask_path`` where it is a file, and ``ori_shape`` of the picture.

    Returns:
        (height, width) uint8: 1 on what is meant, 255 on what is ignored, 0 elsewhere.

    Raises:
        FileNotFoundError: If there is no mask file.
        ValueError: If it is of another size, has other values than were said, or shows nothing.
    """
    row = results['row_mask']
    where, image = row['where'], results.get('img_path', '?')
    if 'ori_shape' not in results:
        raise ValueError(
            f'{image}: LoadReferringMask draws at the size of the decoded picture, but got no ori_shape: put LoadImage '
            'before it'
        )
    height, width = results['ori_shape'][:2]
    if 'mask_path' in results:
        mask = _from_file(results['mask_path'], row, height, width, image)
        source = f'{results["mask_path"]} ({where})'
    else:
        mask, source = np.zeros((height, width), np.uint8), f'{where}: mask'
        if row['segmentation']:
            mask |= decode_segmentation(row['segmentation'], height, width, source)
    if not row['allow_no_target'] and not (mask == 1).any():
        raise ValueError(
            f'{source}: expected a mask that shows something of the picture of {height}x{width}, but got none of its '
            'pixels; allow_no_target=True takes it for a sentence about nothing that is there'
        )
    if row.get('ignore'):
        region = decode_segmentation(row['ignore'], height, width, f'{where}: ignore')
        mask[region & (mask != 1)] = IGNORED
    return mask


def _from_file(path: str, row: Mapping, height: int, width: int, image: str) -> np.ndarray:
    """The mask of a file by what its values were said to mean."""
    values = row['values']
    found = read_instance_map(path)
    if found.shape != (height, width):
        turned = '; is one of them turned, as EXIF orientation turns photographs?' * (found.shape == (width, height))
        raise ValueError(
            f'{path} ({row["where"]}): expected a mask of the size of {image}, {height}x{width}, but got '
            f'{found.shape[0]}x{found.shape[1]}{turned}'
        )
    found = found.astype(np.uint8) if found.dtype == bool else found
    if values == 'index':
        mask = np.isin(found, row['target']).astype(np.uint8)
        if not mask.any() and not row['allow_no_target']:
            raise ValueError(
                f'{path} ({row["where"]}): expected pixels of the index {row["target"]}, but got the values '
                f'{shown_values(found)}'
            )
        if row.get('ignored_values'):
            mask[np.isin(found, row['ignored_values']) & (mask != 1)] = IGNORED
        return mask
    on = _BINARY[values]
    found = np.where(np.isin(found, WHITE), 255, found) if on == 255 else found
    mask = (found == on).astype(np.uint8)
    if ((found != 0) & (found != on)).any():
        raise ValueError(
            f'{path} ({row["where"]}): mask_values={values!r} expects 0 and {on}, but got the values '
            f'{shown_values(found)}; the others are {", ".join(own for own in MASK_VALUES if own != values)}'
        )
    return mask


def shown_values(array: np.ndarray) -> str:
    """The values of a map, in short."""
    values = np.unique(array)
    return ', '.join(map(str, values[:_SHOWN].tolist())) + ', ...' * (len(values) > _SHOWN)


def _checked_values(values: str | None, mask: str, where: str) -> str:
    if values not in MASK_VALUES:
        raise ValueError(
            f'{where}: the mask is a file ({mask}), so mask_values has to say what it holds, one of {MASK_VALUES}, but '
            f'got {values!r}'
        )
    return values


def _read_cell(value: Any, where: str) -> Any:
    """Plain data of a cell, in which polygons, RLE and numbers are JSON."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith(('[', '{')):
        return parse_json(text, where, 'is no JSON')
    if text.lstrip('-').isdecimal() and len(text) < 19:
        return int(text)
    return {'true': True, 'false': False}.get(text.lower(), text)


def _is_missing(value: Any) -> bool:
    return value is None or value == '' or (isinstance(value, float) and np.isnan(value)) or value == []


def _whole_numbers(value: Any, where: str) -> list[int]:
    numbers = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not numbers or not all(is_integer(number) and number >= 0 for number in numbers):
        raise ValueError(f'{where}: expected a value of the mask file, or several, but got {short_repr(value)}')
    return list(numbers)


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(map(is_number, point))


def is_file_name(value: Any) -> bool:
    """Whether a cell of masks is the name of a file."""
    return isinstance(value, str) and bool(os.path.splitext(value.strip())[1]) and value.strip()[0] not in '[{'
