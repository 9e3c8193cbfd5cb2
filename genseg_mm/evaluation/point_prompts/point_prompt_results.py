"""From the entries of a point-prompt metric, one per picture, to means and to one row per prompt."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from genseg_mm.evaluation.item_names import picture_names

BANDS = ('small', 'medium', 'large')
BOUNDS = (32**2, 96**2)  # COCO's; the bounds themselves are medium


class PromptTable(NamedTuple):
    """All instances of all pictures in the order of the data set, one row each."""

    index: np.ndarray  # (N,) number of the picture
    subset: np.ndarray  # (N,) text
    band: np.ndarray  # (N,) text, one of BANDS
    own_id: np.ndarray  # (N,) int64
    ious: dict[str, np.ndarray]  # choice and map -> (N, R) float64

    @classmethod
    def of(cls, entries: Sequence[dict[str, Any]]) -> 'PromptTable':
        """Puts the entries below one another; at least one is needed."""
        counts = [len(entry['own_ids']) for entry in entries]
        subsets = np.array([entry['subset'] for entry in entries], dtype=object)
        return cls(
            index=np.repeat(np.arange(len(entries)), counts),
            subset=np.repeat(subsets, counts),
            band=size_band(np.concatenate([entry['areas'] for entry in entries])),
            own_id=np.concatenate([entry['own_ids'] for entry in entries]),
            ious={name: np.concatenate([entry['ious'][name] for entry in entries]) for name in entries[0]['ious']},
        )

    def means(self, columns: Mapping[str, int], held_out: np.ndarray, size_bands: bool) -> dict[str, float]:
        """Mean IoU in percent by subset, and over all that is held out, for each map.

        The sums are rounded once (math.fsum), so that no order matters.

        Args:
            columns: The radius of each map.
            held_out: Rows of the overall means, (N,) bool.
            size_bands: Also the means of the small, medium and large instances.
        """
        bands = ('', *BANDS) if size_bands else ('',)
        metrics = {}
        for subset, rows in self._parts(held_out):
            for band in bands:
                chosen = rows if not band else rows & (self.band == band)
                if not chosen.any():
                    continue
                for name, ious in self.ious.items():
                    choice, _, kind = name.rpartition('/')
                    key = '_'.join(filter(None, (subset, choice, band, kind)))
                    metrics[key] = percent(ious[chosen, columns[name]])
        return metrics

    def _parts(self, held_out: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        subsets = list(dict.fromkeys(self.subset.tolist()))
        for subset in subsets:
            yield subset, self.subset == subset
        if '' not in subsets and held_out.any():
            yield '', held_out


def percent(ious: np.ndarray) -> float:
    """100 times the mean of (N,), N above 0, rounded independently of the order."""
    return 100 * math.fsum(ious.tolist()) / len(ious)


def size_band(areas: np.ndarray) -> np.ndarray:
    """'small', 'medium' or 'large' for areas in pixels of the original picture."""
    low, high = BOUNDS
    return np.array(BANDS, dtype=object)[(areas >= low).astype(int) + (areas > high)]


def collapse_share(maps: np.ndarray) -> float:
    """Share of the colour variance of (N, 3, h, w) maps that their mean map explains.

    1.0 where there is no variance at all.
    """
    maps = maps.astype(np.float64)
    mean_map = maps.mean(0)
    mean_color = maps.mean((0, 2, 3))[:, None, None]
    total = ((maps - mean_color) ** 2).mean()
    return float(((mean_map - mean_color) ** 2).mean() / total) if total > 0 else 1.0


def write_prompts(
    path: str,
    entries: Sequence[dict[str, Any]],
    table: PromptTable,
    columns: Mapping[str, int],
    choices: Sequence[str],
    held_out: np.ndarray,
) -> None:
    """Writes one row per prompt, IoU of the model and of the controls where they were measured.

    Args:
        path: Of the file, see :class:`genseg_mm.evaluation.sample_results.SampleResults`.
        entries: One per picture.
        table: The entries as a table.
        columns: The radius of each map.
        choices: The point choices; the first one's rows come first.
        held_out: Rows to write, (N,) bool: a radius was not chosen on them.
    """
    from genseg_mm.evaluation.sample_results import SampleResults

    rows = np.flatnonzero(held_out)
    names = _item_names(entries, table, rows)
    items, values = [], {}
    for place, choice in enumerate(choices):
        items += [f'{name} {choice}' if place else name for name in names]
        prefix = '' if place == 0 else f'{choice}/'
        for name in table.ious:
            head, _, kind = name.rpartition('/')
            if prefix == (f'{head}/' if head else ''):
                column = 'iou' if kind == 'mIoU' else kind
                values.setdefault(column, []).append(table.ious[name][rows, columns[name]])
    num = len(choices)
    SampleResults(
        items=items,
        index=np.tile(table.index[rows], num),
        values={key: np.concatenate(parts) for key, parts in values.items()},
        groups=dict(
            subset=table.subset[rows].tolist() * num,
            size=table.band[rows].tolist() * num,
            choice=[choice for choice in choices for _ in rows],
        ),
        aggregates={'mIoU' if num == 1 else 'mIoU_of_all_choices': ('mean', 'iou')},
    ).save(path)


def _item_names(entries: Sequence[dict], table: PromptTable, rows: np.ndarray) -> list[str]:
    """'subset/picture#id 3'."""
    numbers, place = np.unique(table.index[rows], return_inverse=True)
    names = picture_names([entries[number] for number in numbers.tolist()])
    ids = table.own_id[rows].tolist()
    return [f'{names[own]}#id {number}' for own, number in zip(place.tolist(), ids, strict=True)]
