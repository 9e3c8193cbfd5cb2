"""What the page is to show: a step as JSON, its pictures as data URLs that are sent once."""

import base64
from typing import Any

import cv2
import numpy as np

from genseg_mm.app.downloads import id_map, overlay
from genseg_mm.app.segmenting import Segmenting
from genseg_mm.app.sessions import Session
from genseg_mm.app.steps import Settings, Step, new_key
from genseg_mm.pictures import color_of

_THUMB, _LARGEST_MAP = 112, 512


def view(session: Session, segmenting: Segmenting, settings: Settings, **others: Any) -> dict:
    """The state of a visitor's page.

    Pictures are named, and only those that the page does not have yet come along, in ``blobs``.

    Args:
        session: Of the visitor, locked.
        segmenting: Has the colour maps.
        settings: With which colour maps are shown.
        others: More entries, such as ``error``.
    """
    blobs: dict[str, str] = {}
    named: set[str] = set()

    def blob(name: str, make: Any) -> str:
        if name not in session.sent and name not in blobs:
            blobs[name] = make()
        named.add(name)
        return name

    step = session.current
    state: dict[str, Any] = dict(seq=new_key(), kind='empty', rows=[], objects=[], drawn=[], blobs=blobs)
    state['history'] = [
        dict(label=own.label, thumb=blob(f'thumb:{own.key}', lambda own=own: _thumb(own))) for own in session.steps
    ]
    state['position'] = session.position
    if step is not None:
        state['kind'] = step.kind
        state['drawn'] = [
            blob(f'drawn:{step.key}:{number}', lambda own=own: png(own[..., ::-1]))
            for number, own in enumerate(step.drawn)
        ]
    if step is not None and step.picture is not None:
        picture = step.picture
        height, width = picture.size
        state['picture'] = dict(
            src=blob(f'picture:{picture.key}', lambda: jpeg(picture.bgr)),
            width=width,
            height=height,
            full=picture.full_size,
            name=picture.name,
        )
        state['rows'] = [
            _row(session, step, model, segmenting, settings, blob) for model in _models(step, segmenting, settings)
        ]
        count = max((len(found.masks) for found in step.found.values()), default=0)
        state['colors'] = [color_of(number) for number in range(count)]
        state['objects'] = [
            dict(points=own.points, box=own.box, text=own.text, color=color_of(number))
            for number, own in enumerate(step.prompts)
        ]
    session.sent = named
    return {**state, **others}


def _models(step: Step, segmenting: Segmenting, settings: Settings) -> tuple[str, ...]:
    return tuple(step.found) or segmenting.models_of(step, settings)


def _row(session: Session, step: Step, model: str, segmenting: Segmenting, settings: Settings, blob: Any) -> dict:
    """One model: its masks as a picture of their numbers, and its colour map."""
    found = step.found.get(model)
    row: dict[str, Any] = dict(model=model, ids=None, map=None, what='colour map', seconds=0.0, areas=[])
    if found is not None:
        row['seconds'] = round(found.seconds, 3)
        row['areas'] = [round(mask.area, 4) for mask in found.masks]
        if found.masks:
            row['ids'] = blob(f'ids:{step.key}:{model}', lambda: png(id_map(found.masks)))
    if step.kind == 'words':
        row['what'] = 'mask picture, as generated'
        if found is not None and found.brightness is not None:
            row['map'] = blob(f'grey:{step.key}:{model}', lambda: jpeg(_small(found.brightness)))
    else:
        name = f'map:{step.picture.key}:{model}:{settings.size}'
        colored = segmenting.kept(step.picture, model, settings)
        if colored is not None or name in session.sent:
            row['map'] = blob(name, lambda: _map(colored.network_map))
    return row


def _map(network_map: Any) -> str:
    colors = network_map.float().cpu().numpy().transpose(1, 2, 0)
    bgr = np.ascontiguousarray(np.clip(np.rint(colors), 0, 255).astype(np.uint8)[..., ::-1])
    return png(bgr) if max(bgr.shape[:2]) <= 160 else jpeg(_small(bgr))


def _thumb(step: Step) -> str:
    if step.picture is None:
        return jpeg(_small(step.drawn[0][..., ::-1], _THUMB))
    return jpeg(overlay(step.picture, next(iter(step.found.values()), None), _THUMB))


def _small(picture: np.ndarray, longer_side: int = _LARGEST_MAP) -> np.ndarray:
    scale = longer_side / max(picture.shape[:2])
    if scale >= 1:
        return np.ascontiguousarray(picture)
    size = max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def jpeg(picture: np.ndarray) -> str:
    """A picture (BGR or grey) as the address of itself."""
    return _url('image/jpeg', cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])


def png(picture: np.ndarray) -> str:
    """Likewise, exactly."""
    return _url('image/png', cv2.imencode('.png', picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])


def _url(kind: str, data: Any) -> str:
    return f'data:{kind};base64,{base64.b64encode(data).decode()}'
