"""Pictures that a frozen encoder meets again: encoded once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class _Kept(NamedTuple):
    checksum: int
    picture: Tensor
    encoding: Any


class PictureMemory:
    """Encodings of the pictures of a batch and of the last ones before it, each computed once.

    A referring dataset shows a picture once for each of its sentences. A picture is known again by all of its pixels,
    so that an encoding can never be that of another picture, size or pipeline; and nothing is kept over a change of
    the encoder's weights.

    Args:
        capacity: Pictures that are kept, with their pixels. Where the sentences of a picture follow each other
            (:class:`PictureSampler`), one would do.
    """

    def __init__(self, capacity: int = 4) -> None:
        self.capacity = capacity
        self._kept: list[_Kept] = []  # the one used last at the end
        self._weights: tuple = ()

    def encode(self, pictures: Tensor, encode: Callable[[Tensor], Sequence[Any]], encoder: nn.Module) -> list[Any]:
        """Encodings of the pictures of a batch.

        Args:
            pictures: (N, ...).
            encode: Gives an encoding for each of M pictures, (M, ...).
            encoder: That does so, without any draw. One whose weights are sharded runs on the whole batch: all
                processes have to call it alike.

        Returns:
            N encodings.
        """
        if _is_sharded(encoder):
            return list(encode(pictures))
        if (weights := _weights_of(encoder)) != self._weights:
            self._kept, self._weights = [], weights
        known = list(self._kept)
        found: list[_Kept] = []
        new: dict[int, int] = {}  # places of those met for the first time, by what was made for them
        for index, checksum in enumerate(_checksums(pictures)):
            picture = pictures[index]
            own = next((one for one in known if one.checksum == checksum and _same(one.picture, picture)), None)
            if own is None:
                own = _Kept(checksum, picture, None)
                known.append(own)
                new[id(own)] = index
            found.append(own)
        encodings: dict[int, Any] = {}
        if new:
            places = torch.tensor(list(new.values()), device=pictures.device)
            chosen = pictures if len(new) == len(pictures) else pictures[places]
            encodings = dict(zip(new, encode(chosen), strict=True))
        used = {id(own): own for own in found}
        last = [own for own in self._kept if id(own) not in used] + list(used.values())
        self._kept = [
            # A copy: a view would keep its whole batch.
            _Kept(own.checksum, own.picture.clone(), encodings[id(own)]) if id(own) in encodings else own
            for own in last[-self.capacity :]
        ]
        return [encodings.get(id(own), own.encoding) for own in found]


@contextmanager
def tower_sees_once(
    visual: nn.Module, memory: PictureMemory, pictures: Tensor, to_patches: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> Iterator[None]:
    """Within it, a vision tower of transformers' Qwen-VL sees each picture once: its tokens do not depend on the words.

    Args:
        visual: The tower.
        memory: Of what it gives.
        pictures: That it is asked for, of one size, (N, 3, H, W).
        to_patches: Patches and grids of M pictures.
    """
    whole = visual.forward

    def forward(pixel_values: Tensor, grid_thw: Tensor, **kwargs: Any) -> Any:
        def encode(new: Tensor) -> list[Any]:
            patches, grid = to_patches(new)
            output = whole(patches.type(pixel_values.dtype), grid_thw=grid.to(grid_thw), **kwargs)
            return _by_picture(output, len(new))

        return _joined(memory.encode(pictures, encode, visual))

    visual.forward = forward
    try:
        yield
    finally:
        del visual.forward


def _by_picture(output: Any, num: int) -> list[Any]:
    pooled = output.pooler_output.chunk(num)
    layers = [features.chunk(num) for features in getattr(output, 'deepstack_features', None) or ()]
    return [
        (type(output), own.clone(), [features[index].clone() for features in layers])
        for index, own in enumerate(pooled)
    ]


def _joined(outputs: Sequence[Any]) -> Any:
    kind = outputs[0][0]
    layers = [torch.cat(own) for own in zip(*(features for _, _, features in outputs), strict=True)]
    extra = dict(deepstack_features=layers) if layers else {}
    return kind(pooler_output=torch.cat([pooled for _, pooled, _ in outputs]), **extra)


def _checksums(pictures: Tensor) -> list[int]:
    """One integer per picture; sums of integers do not depend on their order, and so not on the batch."""
    bits = pictures.detach().contiguous().view(torch.uint8).flatten(1)
    if bits.shape[1] % 4 == 0:
        bits = bits.view(torch.int32)
    return bits.sum(1, dtype=torch.int64).tolist()


def _same(one: Tensor, other: Tensor) -> bool:
    alike = one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
    return alike and torch.equal(one, other)


def _weights_of(encoder: nn.Module) -> tuple:
    """Changes with any change of the weights in place, and with any others in their place."""
    tensors = [*encoder.parameters(), *encoder.buffers()]
    return tuple((tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in tensors)


def _is_sharded(encoder: nn.Module) -> bool:
    return any(hasattr(param, 'placements') for param in encoder.parameters())
