"""Images on their way in: what a user may give, how it is read, and batches of one size for the network."""

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmengine.logging import print_log
from mmseg.structures import SegDataSample
from PIL import Image, ImageOps
from torch import Tensor

from genseg_mm.datasets.transforms.images import LoadImage
from genseg_mm.files import check_name
from genseg_mm.files.image_headers import check_opened
from genseg_mm.files.videos import EXTENSIONS as VIDEOS
from genseg_mm.inference.prompts import Prompts
from genseg_mm.inference.taken_names import first_free_number

EXTENSIONS = ('.avif', '.bmp', '.jp2', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')
_EIGHT_BIT = ('1', 'L', 'LA', 'La', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'RGBa', 'CMYK', 'YCbCr', 'LAB', 'HSV')


class Source(NamedTuple):
    """One image that was asked for, not read yet."""

    image: Any  # path, array or PIL image
    path: str  # of its file, or ''
    name: str  # in messages
    stem: str  # of the files that are written, with its folders below the one that was given; unique in one call


def is_folder(inputs: Any) -> bool:
    """Whether the input of a call is the path of a folder."""
    return _is_path(inputs) and os.path.isdir(inputs)


def list_sources(inputs: Any, out_dir: str | os.PathLike = '') -> tuple[list[Source], bool]:
    """Lists the images of one call.

    Args:
        inputs: A path of an image or of a folder (its image files and those of all folders below, sorted by path, but
            hidden ones and links to folders), an array, a PIL image, or a list of paths of images, arrays and PIL
            images.
        out_dir: Folder of results: where it lies below the folder of the images, what is in it is left out; where it is
            that folder, its ``vis`` and ``preds``.

    Returns:
        The sources, and whether the input was a single image.

    Raises:
        FileNotFoundError: If a path does not exist.
        OSError: If a folder cannot be listed.
        ValueError: If there is no image at all, or something that is none of the above.
    """
    is_single = not isinstance(inputs, (list, tuple))
    folder = None
    if is_folder(inputs):
        folder, is_single = Path(inputs), False
        inputs = _images_below(folder, out_dir)
        if not inputs:
            raise ValueError(f'folder {folder} holds no image file ({", ".join(EXTENSIONS)})')
    images = [inputs] if is_single else list(inputs)
    if not images:
        raise ValueError('expected at least one image, but got an empty list')
    if folder is None:
        places = [_path_of(image, index, is_single) for index, image in enumerate(images)]
    else:  # a link that leads nowhere is one of the images that cannot be read
        places = [(os.fspath(image), '') for image in images]
    endings: dict[str, set[str]] = {}  # that files of one name have
    for path, _ in places:
        endings.setdefault(_stem(path, folder), set()).add(Path(path).suffix)
    start = first_free_number(out_dir) if out_dir and any(not path for path, _ in places) else 0
    used, sources = Counter(), []
    for index, (image, (path, position)) in enumerate(zip(images, places, strict=True)):
        name = f'image {path}' if path else position
        stem = _stem(path, folder) if path else f'{start + index:08d}'
        if path and len(endings[stem]) > 1:  # a.jpg and a.png: which is which does not depend on what else is there
            stem += Path(path).suffix
        used[stem] += 1
        while used[stem] > 1:  # files of one name in different folders
            stem = f'{stem}_{used[stem]}'
            used[stem] += 1
        sources.append(Source(image, path, name, stem))
    return sources, is_single


def _stem(path: str, folder: Path | None) -> str:
    """The path of a picture below its folder, or else its name, without ending."""
    return Path(path).stem if folder is None else Path(path).relative_to(folder).with_suffix('').as_posix()


def _images_below(folder: Path, out_dir: str | os.PathLike) -> list[Path]:
    def refuse(error: OSError) -> None:  # os.walk would leave out what it cannot list
        raise error

    found, others, videos, results = [], Counter(), [], Path(out_dir).resolve() if out_dir else None
    left_out = [results]
    if results == folder.resolve():
        left_out = [results / 'vis', results / 'preds']
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [
            name for name in folders if not name.startswith('.') and Path(place, name).resolve() not in left_out
        ]
        for name in files:
            if name.startswith('.'):
                continue
            ending = Path(name).suffix.lower()
            if ending in EXTENSIONS:
                found.append(Path(place, name))
            elif ending in VIDEOS:
                videos.append(Path(place, name))
            else:
                others[ending or 'no ending'] += 1
    if videos:
        print_log(
            f'{folder}: left out {len(videos)} videos, which are predicted one by one, such as {min(videos)}',
            'current',
            logging.WARNING,
        )
    if others and found:
        print_log(
            f'{folder}: left out {sum(others.values())} files that end with none of {", ".join(EXTENSIONS)}: '
            + ', '.join(f'{ending} {count}' for ending, count in sorted(others.items())),
            'current',
            logging.WARNING,
        )
    return sorted(found)


def _is_path(image: Any) -> bool:
    return isinstance(image, (str, os.PathLike))


def _path_of(image: Any, index: int, is_single: bool) -> tuple[str, str]:
    """Path, or '', and place among the inputs, after a check that costs no reading."""
    position = 'the image' if is_single else f'image {index} of the list'
    if _is_path(image):
        path = os.fspath(image)
        if '://' in path:
            raise ValueError(f'expected a local file or folder, but got the address {path}: download it first')
        if not os.path.exists(path):
            raise FileNotFoundError(f'image {path} does not exist')
        if os.path.isdir(path):
            raise ValueError(f'{position} must be an image, but got the folder {path}; give folders one at a time')
        return path, position
    if isinstance(image, np.ndarray):
        return '', position
    if isinstance(image, Image.Image):
        file = getattr(image, 'filename', '')
        return file if isinstance(file, str) else '', position
    raise ValueError(
        f'{position} must be a path, a NumPy array (BGR, uint8) or a PIL image, but got {type(image).__name__}'
    )


def read_image(source: Source) -> np.ndarray:
    """Reads one image.

    Files are decoded by :func:`genseg_mm.files.images.decode_picture`, which says what is taken. Arrays are BGR as
    everywhere in OpenMMLab, PIL images RGB as everywhere in PIL. An alpha channel is dropped without blending, one grey
    channel becomes three, and files and PIL images are turned as their EXIF orientation says, in every format, so that
    a file and the same file opened by PIL give the same. Points and boxes count in the turned image.

    Returns:
        BGR, uint8, (H, W, 3).

    Raises:
        ValueError: If the file is damaged, or the array is no 8-bit image.
    """
    image = source.image
    if _is_path(image):
        check_name(source.path, 'image')
        return LoadImage()(dict(img_path=os.fspath(image)))['img']
    if isinstance(image, Image.Image):
        if image.mode not in _EIGHT_BIT:
            raise ValueError(
                f'{source.name} must have 8 bits per channel, but got PIL mode {image.mode!r}; scale it to [0, 255]'
            )
        check_opened(image, source.name)
        try:
            rgb = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
        except (OSError, SyntaxError) as error:  # PIL decodes when pixels are first asked for
            raise ValueError(f'{source.name} cannot be decoded: {error}') from error
        return np.ascontiguousarray(rgb[..., ::-1])
    return _from_array(image, source.name)


def _from_array(image: np.ndarray, name: str) -> np.ndarray:
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise ValueError(
            f'{name} must be an array (H, W, 3) in BGR, (H, W, 4) in BGRA or (H, W) in grey, but got {image.shape}'
        )
    if image.dtype != np.uint8:
        extremes = '' if image.dtype == bool else f' with values from {image.min():g} to {image.max():g}'
        raise ValueError(
            f'{name} must be uint8 in [0, 255], but got {image.dtype}{extremes}: scale, round and convert it first'
        )
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image[..., :3])


@dataclass(frozen=True)
class ColoredImage:
    """An image that a model has coloured."""

    name: str  # in messages
    colors: Tensor  # at the size of the image, (3, H, W) in [0, 255]
    network_map: Tensor  # the same at the network's size, (3, h, w)


@dataclass
class Job:
    """One image: what was asked, and what has come out so far."""

    source: Source
    prompts: Prompts
    image: np.ndarray | None  # BGR; None where it could not be read and is skipped
    outputs: list = field(default_factory=list)  # of the network: one, or one per text
    num_runs: int = 0  # outputs that are to come
    sample: SegDataSample | None = None  # the prediction
    descriptions: list[str] | None = None  # of the texts, where they were asked for

    @property
    def is_done(self) -> bool:
        """Whether nothing is to come any more."""
        return len(self.outputs) == self.num_runs


def read_jobs(sources: Sequence[Source], prompts: Sequence[Prompts], on_error: str = 'raise') -> Iterator[Job]:
    """Reads the images one by one.

    Args:
        sources: The images.
        prompts: One per image; points must lie in their image.
        on_error: 'raise', or 'skip': an image that cannot be read becomes a job without one. They are logged, and so is
            their number.
    """
    if on_error not in ('raise', 'skip'):
        raise ValueError(f"on_error must be 'raise' or 'skip', but got {on_error!r}")
    num_skipped = 0
    for source, own in zip(sources, prompts, strict=True):
        image = None
        try:
            image = read_image(source)
        except (ValueError, OSError) as error:
            if on_error == 'raise':
                raise
            num_skipped += 1
            print_log(f'Skipped: {error}', 'current', logging.WARNING)
        if image is not None:
            own.check(source.name, image.shape[:2])
        yield Job(source, own, image)
    if num_skipped:
        message = f'{num_skipped} of {len(sources)} images were skipped, since they could not be read.'
        print_log(message, 'current', logging.WARNING)


def run_in_order(
    jobs: Iterable[Job],
    pack: Callable[[Job], Iterable[dict]],
    run: Callable[[list[tuple[Job, dict]]], Any],
    batch_size: int,
) -> Iterator[Job]:
    """Runs full batches of one size as they come together.

    At most about four batches of inputs wait at any time: where more would, because many images differ in size, the
    size that has waited longest is run in a smaller batch.

    Args:
        jobs: Read one by one.
        pack: Network inputs of a job, dicts with ``inputs`` (3, h, w).
        run: Called with at most batch_size inputs of one size and their jobs, to whose ``outputs`` it adds.
        batch_size: At least 1.

    Yields:
        The jobs in their order, each as soon as it and those before it are done.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f'batch_size must be a whole number of at least 1, but got {batch_size!r}')
    queues: dict[tuple, list] = {}  # network size -> inputs that wait; the size that has waited longest comes first
    order: deque[Job] = deque()

    def run_queue(size: tuple) -> None:
        waiting = queues.pop(size)
        for start in range(0, len(waiting), batch_size):
            run(waiting[start : start + batch_size])

    for job in jobs:
        order.append(job)
        for data in pack(job):
            queues.setdefault(tuple(data['inputs'].shape), []).append((job, data))
            job.num_runs += 1
        for size in [size for size, waiting in queues.items() if len(waiting) >= batch_size]:
            run_queue(size)
        while sum(map(len, queues.values())) > 4 * batch_size:
            run_queue(next(iter(queues)))
        while order and order[0].is_done:
            yield order.popleft()
    for size in list(queues):
        run_queue(size)
    yield from order
