"""A machine-learning back end of Label Studio: clicks, boxes and texts come by HTTP, brush strokes go back.

Only the standard library serves it. It answers ``GET /health``, ``POST /setup``, ``/predict`` and ``/webhook`` of Label
Studio's protocol. Pictures are read from one folder: addresses elsewhere, and paths that lead out of it, are refused,
and so are bodies that are too long or not JSON (which a page of another site could send).
"""

import json
import logging
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

import numpy as np
from mmengine.logging import print_log

from genseg_mm.files import parse_json, read_bytes
from genseg_mm.files.images import decode_picture
from genseg_mm.inference.annotation_exports import brush_rle
from genseg_mm.inferencers import GenSegInferencer

MAX_BODY = 8 << 20  # bytes of a request
MAX_PICTURE = 256 << 20  # bytes of a file
MAX_TASKS = 64  # of one request
MAX_REGIONS = 256  # likewise: each may be a point of the prompt
KEPT_MAPS = 4  # colour maps of the pictures that were clicked on last
SECONDS = 60  # that a connection may take to send its request
LOCAL = ('localhost', '127.0.0.1', '::1')
_UNKNOWN = 'object'
_ENTITIES = ('<!doctype', '<!entity')  # which can make an endless text of a short one


class LabelConfig(NamedTuple):
    """What a project's labelling interface says of brushes."""

    brush: str  # name of the BrushLabels
    image: str  # name of the Image that they are for
    key: str  # of the picture in the data of a task
    labels: tuple[str, ...]


def read_label_config(text: str) -> LabelConfig:
    """The brushes of a labelling interface.

    Raises:
        ValueError: If it is no XML, or has no BrushLabels for an Image.
    """
    if not isinstance(text, str) or any(word in text.lower() for word in _ENTITIES):
        raise ValueError('label_config: expected the XML of a labelling interface, without DOCTYPE and entities')
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f'label_config: expected XML, but got {error}') from error
    images = {node.get('name'): node.get('value', '') for node in root.iter('Image')}
    for node in root.iter('BrushLabels'):
        image = node.get('toName')
        if node.get('name') and image in images and images[image].startswith('$'):
            labels = tuple(own.get('value') for own in node.iter('Label') if own.get('value'))
            return LabelConfig(node.get('name'), image, images[image][1:], labels or (_UNKNOWN,))
    raise ValueError(
        'label_config: expected <Image name="image" value="$image"/> and <BrushLabels name="..." toName="image">, but '
        'found no such pair'
    )


class LabelStudioBackend:
    """Answers the requests of Label Studio with a model.

    Args:
        inferencer: Of a colorer, which takes clicks and boxes, or of a GenMask, which takes texts.
        data_root: Folder of the pictures: ``/data/local-files/?d=PATH``, ``/data/upload/PATH`` (also below
            ``media``), ``/PATH`` and ``PATH`` of a task lie below it.
        model_version: What predictions are marked with.
    """

    def __init__(self, inferencer: GenSegInferencer, data_root: str | os.PathLike, model_version: str) -> None:
        if not Path(data_root).is_dir():
            raise FileNotFoundError(f'the folder of pictures {data_root} does not exist')
        self.inferencer, self.root, self.model_version = inferencer, Path(data_root).resolve(), model_version
        self._maps: OrderedDict[tuple, Any] = OrderedDict()
        self._turn = threading.Lock()  # the model answers one request at a time

    def predict(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """``results``: for each task its brush strokes.

        What was clicked, boxed or typed comes as ``params.context.result``; without it, a colorer gives all instances
        that it finds, with the first label, and a GenMask what each label of the interface names.

        Raises:
            ValueError: If the request is not of the protocol, or names a picture that is not to be read.
        """
        tasks = request.get('tasks')
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks) or len(tasks) > MAX_TASKS:
            raise ValueError(f'tasks: expected a list of at most {MAX_TASKS} tasks')
        config = read_label_config(request.get('label_config'))
        regions: Any = request.get('params') or {}
        for name, key in (('params', 'context'), ('params.context', 'result')):
            if not isinstance(regions, dict):
                raise ValueError(f'{name}: expected an object, but got {type(regions).__name__}')
            regions = regions.get(key) or ([] if key == 'result' else {})
        if not isinstance(regions, list) or not all(isinstance(own, dict) for own in regions):
            raise ValueError('params.context.result: expected a list of regions')
        if len(regions) > MAX_REGIONS:
            raise ValueError(f'params.context.result: expected at most {MAX_REGIONS} regions, but got {len(regions)}')
        with self._turn:
            return dict(results=[self._task(task, config, regions) for task in tasks])

    def picture_path(self, address: Any) -> Path:
        """The file of a picture of a task.

        Raises:
            ValueError: If it is an address elsewhere, leads out of the folder of pictures, or is not there.
        """
        if not isinstance(address, str) or not address.strip() or '\0' in address:
            raise ValueError(f'picture: expected a path below the folder of pictures, but got {str(address)[:80]!r}')
        try:
            parts = urlsplit(address)
        except ValueError as error:
            raise ValueError(f'picture: expected a path, but got {address[:80]!r}: {error}') from error
        if parts.scheme or parts.netloc:
            raise ValueError(f'picture: expected a path below the folder of pictures, but got {address[:80]!r}')
        name = unquote(parts.path).lstrip('/')
        if name.startswith('data/local-files'):
            name = parse_qs(parts.query).get('d', [''])[0].lstrip('/')
        places = [name]
        if name.startswith('data/upload/'):
            places = [name.removeprefix('data/'), f'media/{name.removeprefix("data/")}']
        for place in places:
            try:
                path = (self.root / place).resolve()
                if path.is_relative_to(self.root) and path.is_file():
                    return path
            except (OSError, ValueError):  # longer than any name, or with characters that no name has
                continue
        raise ValueError(f'picture: there is no file {name[:80]!r} below the folder of pictures')

    def _task(self, task: Mapping[str, Any], config: LabelConfig, regions: Sequence[Mapping]) -> dict[str, Any]:
        data = task.get('data')
        path = self.picture_path(data.get(config.key) if isinstance(data, dict) else None)
        name = f'the picture {path.name}'
        image = decode_picture(read_bytes(path, MAX_PICTURE), name)
        found = self._asked(image, path, config, regions) if regions else self._unasked(image, path, config)
        height, width = image.shape[:2]
        strokes = [
            dict(
                id=uuid.uuid4().hex[:10],
                type='brushlabels',
                from_name=config.brush,
                to_name=config.image,
                original_width=width,
                original_height=height,
                image_rotation=0,
                value=dict(format='rle', rle=brush_rle(mask), brushlabels=[label]),
                score=float(score),
                readonly=False,
            )
            for mask, score, label in found
            if mask.any()
        ]
        score = float(np.mean([own['score'] for own in strokes])) if strokes else 0.0
        return dict(result=strokes, score=score, model_version=self.model_version)

    def _asked(
        self, image: np.ndarray, path: Path, config: LabelConfig, regions: Sequence[Mapping]
    ) -> list[tuple[np.ndarray, float, str]]:
        """Mask, score and label of what was clicked, boxed or typed."""
        label = next((own for region in regions[::-1] for own in _labels_of(region)), config.labels[0])
        if self.inferencer.takes_texts:
            texts = [text for region in regions for text in _texts_of(region)] or list(_labels_of(regions[-1]))[:1]
            return self._sentences(image, texts, [label] * len(texts))
        points, labels, box = prompts_of(regions, image.shape[0], image.shape[1])
        if box is None and 1 not in labels:
            return []
        given = dict(points=[points], point_labels=[labels]) if points else {}
        if box is not None:
            given['boxes'] = [box]
        result = self.inferencer.prompt(image=self._map(image, path), **given)
        return [(result['masks'][0], float(result['scores'][0]), label)]

    def _unasked(self, image: np.ndarray, path: Path, config: LabelConfig) -> list[tuple[np.ndarray, float, str]]:
        if self.inferencer.takes_texts:
            return self._sentences(image, list(config.labels), list(config.labels))
        result = self.inferencer.prompt(image=self._map(image, path), automatic=True)
        return [(mask, score, config.labels[0]) for mask, score in zip(result['masks'], result['scores'], strict=True)]

    def _sentences(self, image: np.ndarray, texts: list[str], labels: list[str]) -> list[tuple[np.ndarray, float, str]]:
        if not texts:
            return []
        (result,) = self.inferencer(image, texts=texts, progress_bar=False)['predictions']
        return list(zip(result['masks'], result['scores'], labels, strict=True))

    def _map(self, image: np.ndarray, path: Path) -> Any:
        """The colour map of a picture, computed once while it is clicked on."""
        status = path.stat()
        key = str(path), status.st_mtime_ns, status.st_size
        if key not in self._maps:
            self._maps[key] = self.inferencer.color_image(image)
            while len(self._maps) > KEPT_MAPS:
                self._maps.popitem(last=False)
        self._maps.move_to_end(key)
        return self._maps[key]


def prompts_of(
    regions: Sequence[Mapping[str, Any]], height: int, width: int
) -> tuple[list[tuple[float, float]], list[int], list[float] | None]:
    """Points (x, y), their labels and the last box, in pixels, of the regions of a request, which are in percent.

    Raises:
        ValueError: If a region has no place within the picture.
    """
    points, labels, box = [], [], None
    for region in regions:
        value, kind = region.get('value'), region.get('type')
        if kind not in ('keypointlabels', 'keypoint', 'rectanglelabels', 'rectangle'):
            continue
        x, y = (_part(value, name) for name in 'xy')
        if kind.startswith('keypoint'):
            points.append((min(x * width - 0.5, width - 1.0), min(y * height - 0.5, height - 1.0)))
            labels.append(int(bool(region.get('is_positive', True))))
        else:
            across, down = (_part(value, name) for name in ('width', 'height'))
            box = [x * width, y * height, min(x + across, 1) * width, min(y + down, 1) * height]
    return points, labels, box


def _part(value: Any, name: str) -> float:
    number = value.get(name) if isinstance(value, dict) else None
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= 100:
        raise ValueError(f'a region: expected value.{name} in percent of the picture, but got {str(number)[:40]}')
    return number / 100


def _labels_of(region: Mapping[str, Any]) -> list[str]:
    value = region.get('value')
    if not isinstance(value, dict):
        return []
    for key in (str(region.get('type')), 'brushlabels', 'labels'):
        own = value.get(key)
        if isinstance(own, list) and own and all(isinstance(one, str) for one in own):
            return own
    return []


def _texts_of(region: Mapping[str, Any]) -> list[str]:
    value = region.get('value')
    if region.get('type') != 'textarea' or not isinstance(value, dict):
        return []
    texts = value.get('text')
    texts = [texts] if isinstance(texts, str) else texts
    return [text for text in texts or [] if isinstance(text, str) and text.strip()]


def make_server(backend: LabelStudioBackend, host: str, port: int) -> ThreadingHTTPServer:
    """The server, which answers once ``serve_forever`` is called. Port 0 takes a free one.

    Raises:
        ValueError: If it cannot listen there.
    """

    class Handler(_Handler):
        pass

    Handler.backend, Handler.local_only = backend, host in LOCAL
    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError) as error:  # taken, forbidden, no such host, no such port
        raise ValueError(f'cannot listen at {host}, port {port}: {error}; choose another --host or --port') from error
    server.daemon_threads = True
    return server


class _Handler(BaseHTTPRequestHandler):
    backend: LabelStudioBackend
    local_only: bool
    timeout = SECONDS
    server_version, sys_version = 'genseg_mm', ''

    def do_GET(self) -> None:
        if not self._is_welcome():
            return
        if urlsplit(self.path).path in ('/', '/health'):
            self._answer(200, dict(status='UP', model_class=type(self.backend.inferencer.model).__name__))
        else:
            self._answer(404, dict(error='expected GET /health, or POST /setup, /predict or /webhook'))

    def do_POST(self) -> None:
        if not self._is_welcome():
            return
        answers = {'/predict': self._predict, '/setup': self._setup, '/webhook': self._webhook}
        answer = answers.get(urlsplit(self.path).path)
        try:
            if answer is None:
                raise LookupError('expected POST /setup, /predict or /webhook')
            self._answer(*answer(self._request()))
        except LookupError as error:
            self._answer(404, dict(error=str(error)))
        except ConnectionError:  # the client has gone; nobody is left to be told
            self.close_connection = True
        except ValueError as error:  # of the request, or of its picture
            print_log(f'refused: {error}', 'current', logging.WARNING)
            self._answer(400, dict(error=str(error)))
        except Exception as error:
            print_log(f'failed: {type(error).__name__}: {error}', 'current', logging.ERROR)
            self._answer(500, dict(error='the prediction failed; the log of the back end says why'))

    def _predict(self, request: dict) -> tuple[int, dict]:
        return 200, self.backend.predict(request)

    def _setup(self, request: dict) -> tuple[int, dict]:
        read_label_config(request.get('schema'))
        return 200, dict(model_version=self.backend.model_version)

    def _webhook(self, request: dict) -> tuple[int, dict]:
        return 200, dict(status='ok', result=f'{str(request.get("action"))[:40]}: nothing is trained')

    def _is_welcome(self) -> bool:
        """A page elsewhere whose name was made to lead here is not."""
        host = self.headers.get('Host', '').rsplit(':', 1)[0].strip('[]')
        if not self.local_only or host in LOCAL:
            return True
        self._answer(403, dict(error='expected a name of this machine as the host'))
        return False

    def _request(self) -> dict:
        length = self.headers.get('Content-Length', '')
        if not length.isascii() or not length.isdigit() or int(length) > MAX_BODY:
            self.close_connection = True
            raise ValueError(f'expected a body of at most {MAX_BODY} bytes with its length, but got {length[:20]!r}')
        if self.headers.get_content_type() != 'application/json':
            self.close_connection = True
            raise ValueError(f'expected application/json, but got {self.headers.get_content_type()!r}')
        content = parse_json(self.rfile.read(int(length)), 'the request', 'is no JSON')
        if not isinstance(content, dict):
            raise ValueError('the request: expected an object')
        return content

    def _answer(self, code: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form: str, *values: Any) -> None:
        """Requests are not logged one by one: their lines may hold whatever a client sends."""
