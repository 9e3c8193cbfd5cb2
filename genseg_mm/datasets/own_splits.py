"""Training and validation of data that come without a split: by the names of the pictures, everywhere the same."""

import hashlib
import math
from collections.abc import Iterable

DRAWN = ('train', 'val')
DEFAULT_SHARE = 0.2  # of the pictures for validation


def checked_share(val_share: float) -> float:
    """The share of pictures that validation gets.

    Raises:
        ValueError: If it is none between 0 and 1.
    """
    if isinstance(val_share, bool) or not isinstance(val_share, (int, float)) or not 0 < val_share < 1:
        raise ValueError(f'val_share must be a share of the pictures between 0 and 1, but got {val_share!r}')
    return float(val_share)


def drawn_split(names: Iterable[str], split: str | None, val_share: float, where: str) -> set[str]:
    """Names of a split that is drawn.

    The names are ordered by their SHA-256, and the first of that order are validation: at least one, and not all. The
    choice depends on the names alone, neither on a seed nor on the order of a folder's listing. When pictures are
    added, a few of the old ones may change sides.

    Args:
        names: Of all pictures, different ones, as they are below their folder.
        split: 'train', 'val', or None for all.
        val_share: Share of validation, between 0 and 1.
        where: What the message of an error starts with.

    Raises:
        ValueError: If the split is another one, or there is only one picture to split.
    """
    names = set(names)
    if split is None:
        return names
    if split not in DRAWN:
        raise ValueError(f'{where}: a split that is drawn is one of {DRAWN}, but got {split!r}')
    if len(names) < 2:
        raise ValueError(f'{where}: expected at least 2 pictures to split into {DRAWN}, but got {len(names)}')
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode('utf-8', 'surrogatepass')).digest())
    count = min(max(math.floor(len(order) * val_share + 0.5), 1), len(order) - 1)
    return set(order[:count] if split == 'val' else order[count:])
