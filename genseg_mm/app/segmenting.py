"""From prompts to masks: what the models find, with the colour maps of pictures kept for the next click."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace

import numpy as np

from genseg_mm.app import limits
from genseg_mm.app.served_models import ServedModel
from genseg_mm.app.steps import Found, Mask, Picture, Prompt, Settings, Step
from genseg_mm.inference.images import ColoredImage


class KeptMaps:
    """Colour maps that were made last, in a bounded memory; what was dropped is made again."""

    def __init__(self, max_bytes: int = limits.MAP_BYTES) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, ColoredImage] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], ColoredImage]) -> ColoredImage:
        """The map of a key, made where it is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        colored = make()
        with self._lock:
            self._kept[key] = colored
            while len(self._kept) > 1 and self.num_bytes > self.max_bytes:
                self._kept.popitem(last=False)
        return colored

    def kept(self, key: Hashable) -> ColoredImage | None:
        """The map of a key, or None."""
        with self._lock:
            return self._kept.get(key)

    @property
    def num_bytes(self) -> int:
        """Of all that is kept."""
        return sum(own.colors.nbytes + own.network_map.nbytes for own in self._kept.values())


class Segmenting:
    """What the models of a page find.

    Args:
        models: By name.
    """

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        self.models = models
        self.maps = KeptMaps()

    def colored(self, picture: Picture, model: str, settings: Settings) -> ColoredImage:
        """The colour map of a picture, from what is kept if it can be."""
        served, size = self.models[model], settings.size
        return self.maps.get((picture.key, model, size), lambda: served.color(picture.bgr, size or None))

    def kept(self, picture: Picture, model: str, settings: Settings) -> ColoredImage | None:
        """The colour map of a picture, where it was made before."""
        return self.maps.kept((picture.key, model, settings.size))

    def clicked(
        self,
        picture: Picture,
        prompts: tuple[Prompt, ...],
        model: str,
        settings: Settings,
        known: Mapping[Prompt, Mask] | None = None,
    ) -> Found:
        """A mask for each prompt of points and boxes; those ``known`` of the same settings are not made again."""
        start, known = time.perf_counter(), known or {}
        masks = tuple(known.get(prompt) or self._mask(picture, prompt, model, settings) for prompt in prompts)
        return Found(masks, time.perf_counter() - start)

    def _mask(self, picture: Picture, prompt: Prompt, model: str, settings: Settings) -> Mask:
        given = {}
        if prompt.points:
            given['points'] = [[point[:2] for point in prompt.points]]
            given['point_labels'] = [[point[2] for point in prompt.points]]
        if prompt.box is not None:
            given['boxes'] = [prompt.box]
        prompting = dict(component=True) if settings.connected else {}
        if settings.radius:
            prompting['radius'] = settings.radius
        colored = self.colored(picture, model, settings)
        result = self.models[model].inferencer.prompt(image=colored, **given, **prompting)
        return Mask.pack(result['masks'][0], result['scores'][0])

    def everything(self, picture: Picture, model: str, settings: Settings) -> Found:
        """All instances of a picture, without prompts."""
        start = time.perf_counter()
        colored = self.colored(picture, model, settings)
        automatic = dict(max_instances=limits.MAX_OBJECTS)
        result = self.models[model].inferencer.prompt(image=colored, automatic=automatic)
        masks = [Mask.pack(*own) for own in zip(result['masks'], result['scores'], strict=True)]
        return Found(tuple(masks), time.perf_counter() - start)

    def named(self, picture: Picture, prompts: tuple[Prompt, ...], model: str, settings: Settings) -> Found:
        """A mask for each sentence."""
        start, served, masks = time.perf_counter(), self.models[model], []
        shown = np.zeros(picture.size, np.float32)
        threshold = settings.threshold or served.threshold
        for prompt in prompts:
            brightness = served.brightness(picture.bgr, prompt.text, settings.size or None)
            mask = brightness > threshold
            masks.append(Mask.pack(mask, brightness[mask].mean() if mask.any() else 0.0))
            np.maximum(shown, brightness, out=shown)
        grey = (shown.clip(0, 1) * 255).astype(np.uint8)
        return Found(tuple(masks), time.perf_counter() - start, grey)

    def again(self, step: Step, model: str, settings: Settings) -> Found:
        """What a model finds for the prompts of a step."""
        if step.kind == 'words':
            return self.named(step.picture, step.prompts, model, settings)
        if step.kind == 'everything':
            return self.everything(step.picture, model, settings)
        return self.clicked(step.picture, step.prompts, model, settings)

    def models_of(self, step: Step, settings: Settings) -> tuple[str, ...]:
        """Those of the chosen models that can do what a step asks."""
        return settings.readers if step.kind == 'words' else settings.colorers


def with_click(prompts: tuple[Prompt, ...], tool: str, x: float, y: float) -> tuple[Prompt, ...]:
    """Prompts after one more click.

    Args:
        prompts: So far.
        tool: 'object' begins another object, 'add' adds a positive and 'remove' a negative point to the last one.
        x: In pixels of the picture.
        y: Likewise.

    Raises:
        ValueError: If there is nothing to remove from, or there are too many.
    """
    if tool not in ('object', 'add', 'remove'):
        raise ValueError(f'tool: expected object, add, remove or box, but got {tool!r}')
    if tool == 'remove' and not prompts:
        raise ValueError('click on an object first, then on what is to be taken away from it')
    if tool == 'object' or not prompts:
        return _bounded((*prompts, Prompt(points=((x, y, 1),))))
    last = prompts[-1]
    if len(last.points) >= limits.MAX_POINTS:
        raise ValueError(f'expected at most {limits.MAX_POINTS} points of one object')
    return (*prompts[:-1], replace(last, points=(*last.points, (x, y, 0 if tool == 'remove' else 1))))


def with_box(prompts: tuple[Prompt, ...], box: tuple[float, float, float, float]) -> tuple[Prompt, ...]:
    """Prompts after one more box, xyxy, of another object."""
    return _bounded((*prompts, Prompt(box=box)))


def _bounded(prompts: tuple[Prompt, ...]) -> tuple[Prompt, ...]:
    if len(prompts) > limits.MAX_OBJECTS:
        raise ValueError(f'expected at most {limits.MAX_OBJECTS} objects')
    return prompts
