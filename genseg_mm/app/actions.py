"""What a visitor does, and what the page shows then: all of the page but its form. Knows no Gradio."""

import base64
import logging
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from mmengine.logging import print_log

from genseg_mm.app import limits
from genseg_mm.app.downloads import download
from genseg_mm.app.examples import examples
from genseg_mm.app.segmenting import Segmenting, with_box, with_click
from genseg_mm.app.served_models import ServedModel
from genseg_mm.app.sessions import Session, Sessions
from genseg_mm.app.steps import Found, Picture, Prompt, Settings, Step, new_key
from genseg_mm.app.uploads import picture_of, picture_of_upload
from genseg_mm.app.view import view

GONE = 'there is no picture yet, or it was dropped after a long rest: open one'
FAULT = 'something went wrong on the server, whose log says what'


class Actions:
    """Everything that can be done on a page.

    Every method takes the key of the visitor and gives the state of the page (see ``view``); a mistake of the visitor
    is its ``error``, one line.

    Args:
        models: By name.
        sessions: The visitors.
    """

    def __init__(self, models: Mapping[str, ServedModel], sessions: Sessions | None = None) -> None:
        self.models = models
        self.segmenting = Segmenting(models)
        self.sessions = Sessions() if sessions is None else sessions
        self._decoding = threading.Semaphore(2)  # files of 40 megapixels fill the memory

    def quick(self, key: Hashable, event: Any, settings: Settings) -> dict:
        """What is answered at once: clicks, boxes, history, opening a picture, downloads.

        Args:
            key: Of the visitor.
            event: ``do``, and what that takes; comes from a browser and may be anything.
            settings: Of the sliders.
        """
        do = event.get('do') if isinstance(event, Mapping) else None
        own = dict(
            open=self._open, example=self._example, click=self._click, box=self._box, go=self._go, clear=self._clear,
            tune=self._tune, save=self._save, refresh=self._refresh, use=self._use,
        ).get(do if isinstance(do, str) else '')  # fmt: skip
        session = self.sessions.of(key)

        def work() -> dict:
            if own is None:
                raise ValueError(f'expected an action of this page, but got {str(do)[:30]!r}')
            return own(session, event, settings) or {}

        start = time.perf_counter()
        with session.lock:
            others = self._guarded(work)
            others.setdefault('milliseconds', round(1000 * (time.perf_counter() - start)))
            return view(session, self.segmenting, settings, **others)

    def prepare(self, key: Hashable, settings: Settings) -> Iterator[dict]:
        """Colours the picture by the chosen models, and finds again what the current step asks, model by model.

        It follows the opening of a picture, whose error, if there was one, stays on the page (``keep``).
        """
        session = self.sessions.of(key)
        ticket, step = session.new_ticket(), session.current
        found, error = {}, {}
        models = () if step is None or step.picture is None else self.segmenting.models_of(step, settings)
        for model in models:
            error = error or self._guarded(
                lambda step=step, model=model: self._found_again(step, model, settings, found)
            )
            with session.lock:
                if session.ticket != ticket or session.current is not step:
                    return
                if step.kind != 'picture':  # with a key of its own: the page has pictures of the old masks
                    step = replace(step, found=dict(found), settings=settings, key=new_key())
                    session.replace(step)
                state = view(session, self.segmenting, settings, keep=True, **error)
            yield state
        if not models:
            with session.lock:
                state = view(session, self.segmenting, settings, keep=True)
            yield state

    def _found_again(self, step: Step, model: str, settings: Settings, found: dict[str, Found]) -> None:
        if step.kind == 'picture':
            self.segmenting.colored(step.picture, model, settings)
        elif model in step.found and step.settings is not None and step.settings.of_masks == settings.of_masks:
            found[model] = step.found[model]
        else:
            found[model] = self.segmenting.again(step, model, settings)

    def words(self, key: Hashable, text: Any, settings: Settings) -> Iterator[dict]:
        """Masks of sentences, parted by semicolons, model by model."""

        def prompts() -> tuple[Prompt, ...]:
            return tuple(Prompt(text=own) for own in sentences(text))

        yield from self._asked(key, 'words', prompts, settings)

    def everything(self, key: Hashable, settings: Settings) -> Iterator[dict]:
        """All instances, model by model."""
        yield from self._asked(key, 'everything', tuple, settings)

    def _asked(
        self, key: Hashable, kind: str, prompts_of: Callable[[], tuple[Prompt, ...]], settings: Settings
    ) -> Iterator[dict]:
        session = self.sessions.of(key)
        ticket, before = session.new_ticket(), session.current
        asked: dict[str, Any] = {}

        def check() -> None:
            asked.update(prompts=prompts_of(), picture=_picture(session))
            asked.update(models=self._chosen(kind, settings))

        error = self._guarded(check)
        if error:
            with session.lock:
                state = view(session, self.segmenting, settings, **error)
            yield state
            return
        label = ' · '.join(own.text for own in asked['prompts']) or 'everything'
        step = Step(kind, label, asked['picture'], asked['prompts'], settings=settings)
        found: dict[str, Found] = {}
        for model in asked['models']:
            error = error or self._guarded(lambda model=model: self._found_again(step, model, settings, found))
            with session.lock:
                if session.ticket != ticket or session.current is not before:
                    return
                if model in found:
                    before = replace(step, found=dict(found), key=new_key())
                    (session.replace if len(found) > 1 else session.add)(before)
                state = view(session, self.segmenting, settings, **error)
            yield state

    def draw(
        self, key: Hashable, text: Any, count: Any, seed: Any, steps: Any, guidance: Any, settings: Settings
    ) -> Iterator[dict]:
        """Pictures of a sentence, one by one."""
        session = self.sessions.of(key)
        ticket, before = session.new_ticket(), session.current
        asked: dict[str, Any] = {}

        def check() -> None:
            (sentence,) = sentences(text, 1)
            asked.update(text=sentence, model=self._chosen('words', settings)[0])
            asked.update(count=int(_number(count, 'pictures', 1, limits.MAX_DRAWN)))
            asked.update(seed=int(_number(seed, 'seed', 0, 2**32 - 1)))
            asked['settings'] = dict(
                num_steps=int(_number(steps, 'steps', 1, 100)),
                guidance_scale=_number(guidance, 'guidance', 0, 20) or None,
            )

        error, drawn = self._guarded(check), []
        for number in range(asked.get('count', 1)):
            if not error:
                error = self._guarded(
                    lambda number=number: drawn.append(
                        self.models[asked['model']].draw(asked['text'], asked['seed'] + number, **asked['settings'])
                    )
                )
            with session.lock:
                if session.ticket != ticket or session.current is not before:
                    return
                if not error:
                    before = Step('drawn', f'"{asked["text"]}"', drawn=tuple(drawn))
                    (session.replace if number else session.add)(before)
                state = view(session, self.segmenting, settings, **error)
            yield state
            if error:
                return

    def stop(self, key: Hashable, settings: Settings) -> dict:
        """Drops what slow work would still bring."""
        session = self.sessions.of(key)
        session.new_ticket()
        with session.lock:
            return view(session, self.segmenting, settings, note='stopped')

    def _guarded(self, work: Callable[[], dict | None]) -> dict:
        """What work gives, or its mistake as ``error``: the page stays as it is."""
        try:
            return work() or {}
        except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
            return dict(error=' '.join(str(error).split()))
        except Exception as error:
            print_log(f'{type(error).__name__}: {error}', 'current', logging.ERROR)
            logging.getLogger(__name__).exception(FAULT)
            return dict(error=FAULT)

    def _chosen(self, kind: str, settings: Settings) -> tuple[str, ...]:
        models = settings.readers if kind == 'words' else settings.colorers
        if not models:
            what = 'words' if kind == 'words' else 'clicks'
            raise ValueError(f'no model for {what} is chosen: choose one below "Models"')
        return models

    def _open(self, session: Session, event: Mapping, settings: Settings) -> None:
        with self._decoding:
            picture = picture_of_upload(event.get('data'), event.get('name'))
        self._show(session, picture)

    def _example(self, session: Session, event: Mapping, settings: Settings) -> dict:
        number = int(_number(event.get('number'), 'number', 0, len(examples()) - 1))
        self._show(session, examples()[number].picture())
        return dict(example=number)

    def _use(self, session: Session, event: Mapping, settings: Settings) -> None:
        """A drawn picture becomes the one to segment, enlarged: networks of models see it at their own size."""
        drawn = session.current.drawn if session.current is not None else ()
        number = int(_number(event.get('number'), 'number', 0, max(len(drawn) - 1, 0)))
        if not drawn:
            raise ValueError('there is no drawn picture')
        zoom = max(-(-384 // max(drawn[number].shape[:2])), 1)
        bgr = drawn[number][..., ::-1].repeat(zoom, 0).repeat(zoom, 1).copy()
        self._show(session, picture_of(bgr, f'drawn-{number + 1}.png'))

    def _show(self, session: Session, picture: Picture) -> None:
        session.new_ticket()
        session.add(Step('picture', picture.name, picture))

    def _click(self, session: Session, event: Mapping, settings: Settings) -> None:
        picture = _picture(session)
        x, y = _place(event, 'x', 'y', picture)
        tool = event.get('tool')
        self._prompted(session, settings, with_click(_prompts(session), tool, x, y))

    def _box(self, session: Session, event: Mapping, settings: Settings) -> None:
        picture = _picture(session)
        (left, top), (right, bottom) = (_place(event, x, y, picture, edge=1) for x, y in (('x0', 'y0'), ('x1', 'y1')))
        box = min(left, right), min(top, bottom), max(left, right), max(top, bottom)
        if box[2] - box[0] < 2 or box[3] - box[1] < 2:
            raise ValueError('expected a box of at least 2 x 2 pixels: drag from one corner to the other')
        self._prompted(session, settings, with_box(_prompts(session), box))

    def _prompted(self, session: Session, settings: Settings, prompts: tuple[Prompt, ...]) -> None:
        session.new_ticket()
        step, found = session.current, {}
        for model in self._chosen('clicks', settings):
            known = {}
            if step.kind == 'clicks' and model in step.found and step.settings.of_masks == settings.of_masks:
                known = dict(zip(step.prompts, step.found[model].masks, strict=True))
            found[model] = self.segmenting.clicked(step.picture, prompts, model, settings, known)
        count = f'{len(prompts)} object{"s" * (len(prompts) > 1)}'
        session.add(Step('clicks', count, step.picture, prompts, found, settings=settings))

    def _tune(self, session: Session, event: Mapping, settings: Settings) -> None:
        """The sliders were moved: the same prompts again."""
        step = session.current
        if step is None or step.kind not in ('clicks', 'words', 'everything'):
            return
        session.new_ticket()
        found: dict[str, Found] = {}
        for model in step.found:
            self._found_again(step, model, settings, found)
        session.replace(replace(step, found=found, settings=settings, key=new_key()))

    def _clear(self, session: Session, event: Mapping, settings: Settings) -> None:
        session.new_ticket()
        session.add(Step('picture', 'cleared', _picture(session)))

    def _go(self, session: Session, event: Mapping, settings: Settings) -> None:
        """Undo, redo, or a place in the history."""
        session.new_ticket()
        if 'by' in event:
            session.go(session.position + int(_number(event['by'], 'by', -1, 1)))
        else:
            session.go(int(_number(event.get('to'), 'to', 0, limits.MAX_STEPS)))

    def _refresh(self, session: Session, event: Mapping, settings: Settings) -> None:
        session.sent = set()

    def _save(self, session: Session, event: Mapping, settings: Settings) -> dict:
        step = session.current
        if step is None:
            raise ValueError(GONE)
        model, kind = event.get('model'), event.get('format')
        if model not in step.found:
            raise ValueError('there is no mask to save yet: click on an object first')
        name, mime, data = download(step, model, kind)
        return dict(file=dict(name=name, mime=mime, data=base64.b64encode(data).decode()))


def sentences(text: Any, most: int = limits.MAX_TEXTS) -> list[str]:
    """Sentences that are parted by semicolons.

    Raises:
        ValueError: If there is none, or too many, or a long one.
    """
    found = [' '.join(own.split()) for own in (text.split(';') if isinstance(text, str) else ())]
    found = [own for own in found if own]
    if not found:
        raise ValueError('expected some words, such as: the leftmost star')
    if len(found) > most:
        raise ValueError(f'expected at most {most} sentence{"s" * (most > 1)}, parted by ;, but got {len(found)}')
    if max(map(len, found)) > limits.MAX_TEXT:
        raise ValueError(f'expected at most {limits.MAX_TEXT} characters in a sentence')
    return found


def _prompts(session: Session) -> tuple[Prompt, ...]:
    return session.current.prompts if session.current.kind == 'clicks' else ()


def _picture(session: Session) -> Picture:
    if session.current is None or session.current.picture is None:
        raise ValueError(GONE)
    return session.current.picture


def _place(event: Mapping, x: str, y: str, picture: Picture, edge: int = 0) -> tuple[float, float]:
    """A place in the picture; ``edge`` 1 for corners of boxes, which reach from 0 to the width."""
    height, width = picture.size
    low, less = (0.0, 0.0) if edge else (-0.5, 0.5)
    return _number(event.get(x), x, low, width - less), _number(event.get(y), y, low, height - less)


def _number(value: Any, name: str, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f'{name}: expected a number, but got {str(value)[:30]!r}')
    if not least <= value <= most:
        raise ValueError(f'{name}: expected a number from {least:g} to {most:g}, but got {value:g}')
    return float(value)
