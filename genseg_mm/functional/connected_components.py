"""Connected components of a batch of masks, on any device."""

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def connected_components(masks: Tensor, connectivity: int = 8) -> Tensor:
    """Numbers the connected components of every mask, or of every colour of label maps.

    A mask is cut into horizontal runs; runs that touch in neighbouring rows are joined by hooking
    and pointer jumping: a component's runs, however long its way winds, point at its first run
    after a number of rounds that grows with the logarithm of their number.

    Args:
        masks: (K, H, W) bool, or integers, where pixels belong together if they have the same
            value, which is not 0.
        connectivity: 8 (pixels that share a corner touch) or 4 (only those that share a side).

    Returns:
        (K, H, W) int64: 0 outside of the mask, and 1, 2, ... in the order of each component's first
        pixel, row by row.

    Raises:
        ValueError: If a shape, type or the connectivity is wrong.
    """
    if masks.ndim != 3 or masks.is_floating_point() or masks.is_complex():
        raise ValueError(f'masks: expected (K, H, W) bool or integers, but got {tuple(masks.shape)} {masks.dtype}')
    if connectivity not in (4, 8):
        raise ValueError(f'connectivity: expected 4 or 8, but got {connectivity!r}')
    labels = torch.zeros(masks.shape, dtype=torch.int64, device=masks.device)
    if masks.numel() == 0:
        return labels
    size = max(1, (1 << (22 if masks.device.type == 'cpu' else 26)) // masks[0].numel())
    if masks.dtype == torch.bool:
        masks = masks.view(torch.uint8)
    for part, out in zip(masks.split(size), labels.split(size), strict=True):
        _label(part, connectivity, out)
    return labels


def _label(masks: Tensor, connectivity: int, labels: Tensor) -> None:
    """Writes the numbers of a part of the masks into labels."""
    starts = (masks != 0) & (masks != F.pad(masks[..., :-1], (1, 0)))
    run = starts.flatten().cumsum(0).view(masks.shape).sub_(1)  # of every pixel of a mask
    owner = starts.flatten(1).sum(1)  # runs of every mask
    num_runs = int(owner.sum())
    if num_runs == 0:
        return
    owner = torch.arange(len(masks), device=masks.device).repeat_interleave(owner)  # (R,)
    root = _roots(num_runs, *_touching(masks, run, connectivity))
    first = root == torch.arange(num_runs, device=masks.device)
    before = torch.zeros(len(masks), dtype=torch.int64, device=masks.device)
    before.index_add_(0, owner, first.long())
    before = before.cumsum(0) - before  # components of the masks before
    number = first.cumsum(0)[root] - before[owner]  # (R,)
    inside = masks != 0
    labels[inside] = number[run[inside]]


def _touching(masks: Tensor, run: Tensor, connectivity: int) -> tuple[Tensor, Tensor]:
    """Pairs of runs that touch in neighbouring rows, (E,) each; few more than once."""
    up, down = masks[:, :-1], masks[:, 1:]
    run_up, run_down = run[:, :-1], run[:, 1:]
    both = (up == down) & (down != 0)
    # The first of a stretch stands for all.
    both[..., 1:] &= ~(both[..., :-1] & (down[..., 1:] == down[..., :-1]))
    pairs = [(run_up[both], run_down[both])]
    if connectivity == 8:
        # Corners matter only where no side is shared.
        left, right = (..., slice(None, -1)), (..., slice(1, None))
        for here, there in ((left, right), (right, left)):
            value = up[here]
            corner = (value == down[there]) & (value != 0)
            corner &= (value != up[there]) & (value != down[here])
            pairs.append((run_up[here][corner], run_down[there][corner]))
    first, second = zip(*pairs, strict=True)
    return torch.cat(first), torch.cat(second)


def _roots(num: int, first: Tensor, second: Tensor) -> Tensor:
    """The smallest member of everyone's group, (num,), where the pairs (first, second) join."""
    parent = torch.arange(num, device=first.device)
    while len(first):
        low, high = torch.minimum(first, second), torch.maximum(first, second)
        parent.scatter_reduce_(0, high, low, 'amin')  # a root hooks to its smallest neighbour
        while True:
            grandparent = parent[parent]
            if torch.equal(grandparent, parent):
                break
            parent = grandparent
        first, second = parent[first], parent[second]
        apart = first != second
        first, second = first[apart], second[apart]
    return parent
