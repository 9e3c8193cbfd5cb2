"""Pictures to begin with: scenes of ours, drawn at any size, so that nothing is downloaded."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from genseg_mm.app.steps import Picture
from genseg_mm.datasets import ObjectScenesDataset, ShapesDataset
from genseg_mm.datasets.object_bank import default_bank

_SIZE = (480, 640)


class Example(NamedTuple):
    """A picture to begin with.

    Attributes:
        title: Under it.
        draw: Gives it, (h, w, 3) BGR.
        text: A sentence that is true of something in it; '' where no model reads words about such pictures.
        world: In the names of the models that know such pictures.
    """

    title: str
    draw: Callable[[], np.ndarray]
    text: str
    world: str

    def picture(self) -> Picture:
        """As an upload would give it."""
        bgr = np.ascontiguousarray(self.draw())
        return Picture(bgr, bgr.shape[:2], f'{self.title.replace(" ", "-")}.png')


@cache
def examples() -> tuple[Example, ...]:
    """Scenes of objects where their pictures are at hand, and of shapes."""
    found = []
    drawn = ((6, 'shapes', 'the leftmost cross'), (3, 'crowd', 'the circle'))
    if default_bank().is_file():
        objects = ObjectScenesDataset(20, _SIZE, split='test')
        known = (9, 'workshop', 'the framed picture'), (12, 'thunder', 'the neutral face'), (4, 'flower', 'the flower')
        found, drawn = [_example(objects, *own, 'objects') for own in known], drawn[:1]
    shapes = ShapesDataset(8, _SIZE, split='test', cache=False)
    found += [_example(shapes, *own, 'shapes') for own in drawn]
    look_alikes = ShapesDataset(8, _SIZE, task='instance', split='test', cache=False)
    found += [_example(look_alikes, *own, '', 'shapes') for own in ((2, 'look-alikes'), (7, 'chequers'))]
    return tuple(found)


def _example(dataset: ObjectScenesDataset | ShapesDataset, index: int, title: str, text: str, world: str) -> Example:
    return Example(title, lambda: dataset.scene(index).image, text, world)


def suited(models: Sequence[str], world: str) -> str | None:
    """The first model that knows pictures of a world, by its name; else the first of all."""
    return next((name for name in models if f'_{world}_' in name), models[0] if models else None)
