"""What a visitor has: pictures, what was asked of them, and the masks that came; values that never change."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

_NUMBERS = itertools.count(1)


def new_key() -> int:
    """A number that nothing else has: of a picture or a step."""
    return next(_NUMBERS)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as it is worked on."""

    bgr: np.ndarray  # (h, w, 3) uint8
    full_size: tuple[int, int]  # (H, W) of the file
    name: str
    key: int = field(default_factory=new_key)

    @property
    def size(self) -> tuple[int, int]:
        return self.bgr.shape[:2]


@dataclass(frozen=True)
class Prompt:
    """What one object was asked for with: points (x, y, 1 or 0 for negative) and a box xyxy in pixels, or words."""

    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    text: str | None = None


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask in an eighth of a byte per pixel."""

    bits: np.ndarray
    size: tuple[int, int]
    score: float
    area: float  # share of the picture

    @classmethod
    def pack(cls, mask: np.ndarray, score: float) -> 'Mask':
        """Of a bool array (h, w)."""
        return cls(np.packbits(mask), mask.shape, float(score), float(mask.mean()))

    def array(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """As bool, (h, w); ``size`` is another one to bring it to, each pixel as the nearest."""
        height, width = self.size
        mask = np.unpackbits(self.bits, count=height * width).reshape(height, width)
        if size is not None and tuple(size) != self.size:
            mask = cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
        return mask.view(bool)


@dataclass(frozen=True, eq=False)
class Found:
    """What one model found."""

    masks: tuple[Mask, ...]
    seconds: float = 0.0
    brightness: np.ndarray | None = None  # the generated mask picture, (h, w) uint8, of models that read words


@dataclass(frozen=True)
class Settings:
    """What the sliders and the choice of models say; 0 is what a model has of itself.

    Attributes:
        radius: Largest distance of colours to the one under the click, in [0, 442].
        threshold: Of the generated mask picture, in [0, 1).
        size: Longer side that the network sees, in pixels.
        connected: Keep only the part of a mask that the click is on.
        colorers: Models for clicks, by name.
        readers: Models for words.
    """

    radius: float = 0.0
    threshold: float = 0.0
    size: int = 0
    connected: bool = True
    colorers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()

    @property
    def of_masks(self) -> tuple:
        """All that decides how a model makes masks."""
        return self.radius, self.threshold, self.size, self.connected


@dataclass(frozen=True, eq=False)
class Step:
    """One state of a visitor's page.

    Attributes:
        kind: 'picture' (nothing asked yet), 'clicks', 'everything', 'words' or 'drawn'.
        label: In the history.
        picture: None only of 'drawn'.
        prompts: One per object of 'clicks' and 'words'.
        found: By model; ``masks`` one per prompt, or of 'everything' as many as there are.
        drawn: Pictures of words, RGB.
        settings: That its masks were found with.
        key: Of its own.
    """

    kind: str
    label: str
    picture: Picture | None = None
    prompts: tuple[Prompt, ...] = ()
    found: Mapping[str, Found] = field(default_factory=dict)
    drawn: tuple[np.ndarray, ...] = ()
    settings: Settings | None = None
    key: int = field(default_factory=new_key)

    @property
    def num_bytes(self) -> int:
        """Of its own, without the picture, which steps share."""
        held = [mask.bits.nbytes for found in self.found.values() for mask in found.masks]
        held += [found.brightness.nbytes for found in self.found.values() if found.brightness is not None]
        return sum(held) + sum(own.nbytes for own in self.drawn) + 1000
