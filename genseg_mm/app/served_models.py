"""The models of a page: opened when they are first needed, and used by one visitor at a time."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genseg_mm.benchmarking.suite import parse_model
from genseg_mm.inference.build_model import CONFIG_ENDINGS, is_config, read_config, with_weights
from genseg_mm.inference.images import ColoredImage, Job, list_sources
from genseg_mm.inference.prompts import Prompts
from genseg_mm.inferencers import GenSegInferencer
from genseg_mm.models.colorers.released_folder import released_kind
from genseg_mm.models.saved.config import SAVED
from genseg_mm.registry import class_name


class ServedModel:
    """One model.

    Attributes:
        name: In the page.
        takes_texts: Whether it is a GenMask, which reads words, and no colorer, which takes clicks.
    """

    def __init__(
        self, name: str, model: str, weights: str | None = None, device: str | None = None, released: bool = False
    ) -> None:
        self.name, self._model, self._weights, self._device, self._released = name, model, weights, device, released
        self._lock = threading.Lock()
        self._inferencer: GenSegInferencer | None = None
        if not released:
            self.takes_texts = class_name(read_config(model)[0].model.get('type')) == 'GenMask'
        else:  # what a saved model is, it says when it is opened; others are colorers
            self.takes_texts = released_kind(model) == SAVED and self.inferencer.takes_texts

    @property
    def inferencer(self) -> GenSegInferencer:
        """Opened at the first call."""
        if self._inferencer is None:
            with self._lock:
                if self._inferencer is None:
                    self._inferencer = self._opened()
        return self._inferencer

    def _opened(self) -> GenSegInferencer:
        if self._released:
            inferencer = GenSegInferencer.from_pretrained(self._model, device=self._device)
            inferencer.show_progress = False
            return inferencer
        return GenSegInferencer(self._model, self._weights, device=self._device, show_progress=False)

    @property
    def radius(self) -> float | None:
        """Of its masks from points; None where a threshold decides."""
        return self.inferencer.model.prompting.get('radius')

    def color(self, bgr: np.ndarray, size: int | None) -> ColoredImage:
        """The colour map of a picture; ``size`` is the longer side that the network sees, None its own."""
        inferencer = self.inferencer
        with self._lock:
            return inferencer.color_image(bgr, _sides(bgr, size))

    def brightness(self, bgr: np.ndarray, text: str, size: int | None) -> np.ndarray:
        """The mask picture that a GenMask generates, (h, w) float32, black 0 and white 1, about."""
        inferencer = self.inferencer
        job = Job(list_sources(bgr)[0][0], Prompts(texts=(text,)), bgr)
        with self._lock:
            inferencer.forward([(job, data) for data in inferencer.preprocess(job, _sides(bgr, size))])
        return job.outputs[0].numpy() / 2 + self.threshold

    @property
    def threshold(self) -> float:
        """Of the mask picture."""
        return self.inferencer.model.mask_head.threshold

    def draw(self, text: str, seed: int, **settings: object) -> np.ndarray:
        """A picture of words, RGB."""
        inferencer = self.inferencer
        with self._lock:
            return inferencer.generate(text, seed=seed, **settings)['predictions'][0]['image']


def _sides(bgr: np.ndarray, size: int | None) -> tuple[int, int] | None:
    """(height, width) with this longer side, in multiples of 16, which every shipped network takes."""
    if not size:
        return None
    scale = size / max(bgr.shape[:2])
    return tuple(max(round(side * scale / 16), 1) * 16 for side in bgr.shape[:2])


def served_models(texts: Sequence[str] = (), device: str | None = None) -> dict[str, ServedModel]:
    """The models of a page by name.

    Args:
        texts: Each a name of a model that comes with weights, ``[NAME=]CONFIG:CHECKPOINT``, or the folder or hub id of
            a saved model or of released gen2seg weights, with or without ``NAME=``. None: all that come with the
            package.
        device: Such as 'cuda:0'; None takes the best there is.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If a text is none of these, or two have one name.
    """
    models: dict[str, ServedModel] = {}
    for text in texts or sorted(with_weights(), key=lambda name: 'mae' in name):  # a page begins with the first
        model = _served_model(text, device)
        if model.name in models:
            raise ValueError(f'two models are called {model.name}; tell them apart with NAME=CONFIG:CHECKPOINT')
        models[model.name] = model
    return models


def _served_model(text: str, device: str | None) -> ServedModel:
    if is_config(text) and not text.endswith(CONFIG_ENDINGS):
        name = text.removeprefix('genseg_mm/')
        if name not in with_weights():
            raise ValueError(
                f'{text} comes without trained weights (there are those of {", ".join(with_weights())}): train it '
                'and give CONFIG:CHECKPOINT'
            )
        return ServedModel(name, text, device=device)
    entry = parse_model(text)
    config, checkpoint = entry['config'], entry['checkpoint']
    released = not is_config(config)
    if not released and checkpoint is None:
        raise ValueError(f'{text} is a config: expected CONFIG:CHECKPOINT, but got no weights')
    for file in (config, checkpoint):
        if file is not None and not released and not Path(file).is_file():
            raise FileNotFoundError(f'{file} does not exist')
    return ServedModel(entry['name'], config, checkpoint, device, released)
