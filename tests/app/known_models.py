"""Models of a page whose answers are known by hand: one that colours a picture by itself, one that reads words."""

import threading

import numpy as np
from known_scenes import inferencer

from genseg_mm.app.served_models import ServedModel
from genseg_mm.app.steps import Settings

SETTINGS = Settings(connected=False, colorers=('painter',), readers=('reader',))


class Painter(ServedModel):
    """A colorer whose map is the picture itself; ``seen`` has the sizes that its network saw."""

    def __init__(self, name: str = 'painter') -> None:
        self.name, self.takes_texts, self._lock = name, False, threading.Lock()
        self._inferencer = inferencer()

    @property
    def seen(self) -> list:
        return self.inferencer.model.colorer.seen


class Reader(ServedModel):
    """Finds what is red, green or blue; draws a picture of one grey, the seed."""

    def __init__(self, name: str = 'reader') -> None:
        self.name, self.takes_texts, self.asked = name, True, []

    threshold = 0.5

    def brightness(self, bgr: np.ndarray, text: str, size: int | None) -> np.ndarray:
        self.asked.append(text)
        if text == 'nothing':
            raise ValueError('the model cannot read that')
        channel = {'blue': 0, 'green': 1, 'red': 2}[text.rpartition(' ')[2]]
        return bgr[..., channel] / np.float32(255) * (bgr.sum(2) == bgr[..., channel])

    def draw(self, text: str, seed: int, **settings: object) -> np.ndarray:
        self.asked.append((text, seed, settings))
        return np.full((16, 24, 3), seed, np.uint8)
