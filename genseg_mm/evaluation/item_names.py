"""Names of items and pictures in sample results: the same for every model, machine and batch size."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def told_apart(names: Sequence[str]) -> list[str]:
    """Names in the data set's order, of which repeated ones get ' (2)', ' (3)' ... appended."""
    seen: Counter[str] = Counter()
    taken, unique = set(names), []
    for name in names:
        seen[name] += 1
        number, own = seen[name], name
        while number > 1 and (own := f'{name} ({number})') in taken:
            number += 1
        seen[name] = number
        taken.add(own)
        unique.append(own)
    return unique


def picture_names(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """``'<subset>/<picture>'`` of each entry; the subset is left out where there is none.

    Pictures of one name (in several folders) are called by their ``img_id``.

    Args:
        entries: In the data set's order; ``picture``, the name of the file, ``img_id`` and ``subset``.
    """

    def name(entry: Mapping[str, Any], own: Any) -> str:
        return (f'{entry["subset"]}/{own}' if entry['subset'] else f'{own}').replace('#', '%23')

    names = [name(entry, entry['picture']) for entry in entries]
    times = Counter(names)
    names = [
        name(entry, entry['img_id']) if times[own] > 1 and entry.get('img_id') is not None else own
        for entry, own in zip(entries, names, strict=True)
    ]
    return told_apart(names)
