"""The file of refined descriptions: written once by tools/dataset_tools/write_descriptions.py, read by UseDescriptions.

JSON: ``{"writer": settings, "descriptions": {picture: {text: description}}}``. A picture is named by its file and the
folder that this lies in (``val/1000.jpg``: splits may use a name twice), so the data may move as a whole; without a
file by its pixels, since scenes of several data sets have the same ids.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from genseg_mm.files import has_lone_surrogate, read_json
from genseg_mm.whole_files import whole_file

TOOL = 'tools/dataset_tools/write_descriptions.py CONFIG'


class DescriptionFile:
    """Descriptions of (picture, text) pairs and the settings of the model that wrote them.

    Args:
        path: The file.
        writer: Settings of the writer, plain JSON values.
        descriptions: Descriptions by picture and text.
    """

    def __init__(self, path: str | Path, writer: Mapping, descriptions: dict[str, dict[str, str]]) -> None:
        self.path, self.writer, self.descriptions = Path(path), dict(writer), descriptions

    @classmethod
    def read(cls, path: str | Path) -> 'DescriptionFile':
        """Reads a file.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is of another form.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(f'no file of descriptions {path}: write it with {TOOL} {path}')
        expected = '{"writer": {...}, "descriptions": {picture: {text: description}}}'
        content = read_json(path)
        if not _is_content(content):
            raise ValueError(f'{path}: expected JSON of {expected}, but got other entries')
        return cls(path, content['writer'], content['descriptions'])

    @classmethod
    def resume(cls, path: str | Path, writer: Mapping) -> 'DescriptionFile':
        """The file if it was begun by the same writer, or a new one.

        Raises:
            ValueError: If another writer began it.
        """
        writer = json.loads(json.dumps(writer))
        if not os.path.exists(path):
            return cls(path, writer, {})
        file = cls.read(path)
        other = [key for key in {**file.writer, **writer} if file.writer.get(key) != writer.get(key)]
        if other:
            changes = ', '.join(f'{key} {file.writer.get(key)!r} there and {writer.get(key)!r} now' for key in other)
            raise ValueError(
                f'{path} was written with other settings: {changes}. Delete it to write all descriptions anew, or name '
                'another file'
            )
        return file

    def __len__(self) -> int:
        return sum(map(len, self.descriptions.values()))

    def get(self, picture: str, text: str) -> str | None:
        """The description, None if there is none."""
        return self.descriptions.get(picture, {}).get(text)

    def add(self, picture: str, text: str, description: str) -> None:
        """Adds or replaces a description."""
        self.descriptions.setdefault(picture, {})[text] = description

    def save(self) -> None:
        """Writes the file whole or not at all."""
        content = dict(writer=self.writer, descriptions=self.descriptions)
        with whole_file(self.path) as part:
            part.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding='utf-8')


def picture_name(item: Mapping) -> str:
    """How the file names the picture of a dataset item.

    Raises:
        ValueError: If the item has neither ``img_path`` nor ``img``.
    """
    if item.get('img_path'):
        return '/'.join(Path(item['img_path']).parts[-2:])
    if 'img' not in item:
        raise ValueError(f"expected an item with 'img_path' or 'img', but got {sorted(item)}")
    head = f'{item["img"].dtype}{item["img"].shape}'.encode()
    return hashlib.sha256(head + item['img'].tobytes()).hexdigest()[:16]


def _is_content(content: object) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get('writer'), dict):
        return False
    descriptions = content.get('descriptions')
    return isinstance(descriptions, dict) and all(
        isinstance(own, dict) and all(isinstance(text, str) and not has_lone_surrogate(text) for text in own.values())
        for own in descriptions.values()
    )
