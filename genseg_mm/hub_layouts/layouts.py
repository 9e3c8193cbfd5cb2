"""The layout of each released repository: its parts, their ``config.json`` and how their weights are stored.

One JSON file per repository in ``released/`` (``owner__name.json``), from subfolder ('' for the repository's own) to
part. A part has of these:

- ``class``, ``config``, ``dtype``, ``shards``: a model of diffusers or transformers, its public ``config.json``, the
  precision and number of the files of its weights;
- ``rename``: beginnings of tensor names in today's class to those in the files, where a release is older;
- ``tokenizer``, ``settings``: kind of the tokenizer (``tokenizers.py``), and what its ``tokenizer_config.json`` says
  beside the kind's own;
- ``files``: other small JSON files;
- ``like``: ``owner/name:subfolder`` of the part that it is the same as, in place of all others.

A config of ours that names another repository needs such a file before it can be rehearsed or planned.
"""

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from genseg_mm.files.hub_files import HUB_ID

FOLDER = Path(__file__).parent / 'released'
_WEIGHT_FILES = ('.pth', '.pt', '.ckpt', '.safetensors', '.bin')
# Keys of a config below which a text with a slash is no repository.
_NO_SOURCES = ('file', 'checkpoint', 'data_root', 'ann_file', 'img_path', 'template')


@dataclass(frozen=True)
class Part:
    """A subfolder of a released repository.

    Attributes:
        kind: Dotted class of its model, such as ``diffusers.AutoencoderKL``; None for a part without weights.
        config: Its public ``config.json``.
        dtype: Precision of the weights.
        shards: Number of their files.
        rename: Beginnings of tensor names in today's class to those in the files.
        tokenizer: Kind of its tokenizer; None for a part without one.
        settings: Of its ``tokenizer_config.json``, beside those of the kind.
        files: Name of a JSON file to its contents.
    """

    kind: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    dtype: str = 'float32'
    shards: int = 1
    rename: dict[str, str] = field(default_factory=dict)
    tokenizer: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)


class Source(NamedTuple):
    """A repository that a config names.

    Attributes:
        path: Key of the config, such as ``model.codec.autoencoder.pretrained_model_name_or_path``.
        repository: Hub id.
        subfolder: Of the part; '' where the config names none.
    """

    path: str
    repository: str
    subfolder: str


def known_layouts() -> list[str]:
    """Hub ids whose layout is known."""
    return sorted(path.stem.replace('__', '/') for path in FOLDER.glob('*.json'))


@cache
def layout(repository: str) -> dict[str, Part]:
    """Parts of a repository by subfolder.

    Raises:
        ValueError: If its layout is not known.
    """
    path = FOLDER / f'{repository.replace("/", "__")}.json'
    if not path.is_file():
        near = difflib.get_close_matches(repository, known_layouts(), 1)
        raise ValueError(
            f'{repository} has no known layout{f" (but {near[0]} has)" if near else ""}: expected '
            f'genseg_mm/hub_layouts/released/{path.name} with the config.json of each of its parts; '
            f'{Path(__file__).name} says how it is written'
        )
    parts = {}
    for subfolder, own in json.loads(path.read_text()).items():
        if 'like' in own:
            other, _, place = own['like'].partition(':')
            parts[subfolder] = layout(other)[place]
        else:
            parts[subfolder] = Part(**{'kind' if key == 'class' else key: value for key, value in own.items()})
    return parts


def sizes_of(repository: str, *subfolders: str) -> dict[str, dict]:
    """Arguments of diffusers' models by subfolder: their config.json less what diffusers notes about itself."""
    parts = layout(repository)
    return {name: {key: own for key, own in parts[name].config.items() if key[0] != '_'} for name in subfolders}


def part_of(source: Source) -> Part:
    """The part that a source names.

    Raises:
        ValueError: If the repository has no known layout, or no such part.
    """
    parts = layout(source.repository)
    if source.subfolder not in parts:
        raise ValueError(
            f'{source.path}: {source.repository} has the subfolders {sorted(filter(None, parts))}, but got '
            f'{source.subfolder!r}'
        )
    return parts[source.subfolder]


def sources_of(config: Any, path: str = '') -> list[Source]:
    """Every repository that a config names, in the order in which it stands there.

    Any text of the form ``owner/name`` that is no file of weights counts, whatever its key, so that a new part of a
    model cannot pass by unseen; variables that only serve to write a config count too.

    Args:
        config: A config, or a part of it.
        path: Its place, for the paths of the sources.
    """
    return list(dict.fromkeys(_sources(config, path)))


def _sources(config: Any, path: str) -> Iterator[Source]:
    if isinstance(config, dict):
        for key, value in config.items():
            place = f'{path}.{key}' if path else str(key)
            if key in _NO_SOURCES:
                continue
            if _is_repository(value):
                yield Source(place, value, str(_subfolder(config, str(key))))
            else:
                yield from _sources(value, place)
    elif isinstance(config, (list, tuple)):
        for number, value in enumerate(config):
            yield from _sources(value, f'{path}.{number}')


def _subfolder(config: dict, key: str) -> str:
    """Of a part: its own, or that of the arguments beside it (``tokenizer`` and ``tokenizer_kwargs``)."""
    if key == 'pretrained_model_name_or_path':
        return config.get('subfolder') or ''
    own = config.get(f'{key}_kwargs') or {}
    return own.get('subfolder') or ''


def _is_repository(value: Any) -> bool:
    if not isinstance(value, str) or value.count('/') != 1 or not HUB_ID.fullmatch(value):
        return False
    return Path(value).suffix not in (*_WEIGHT_FILES, '.py', '.json')
