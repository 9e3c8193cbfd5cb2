"""Pictures with texts from a folder, a list or tar shards."""

import csv
import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from reprlib import repr as short_repr

from genseg_mm.datasets.captions.caption_dataset import CaptionDataset
from genseg_mm.datasets.captions.tar_shards import (
    IMAGE_ENDINGS,
    TEXT_ENDINGS,
    address,
    clean_captions,
    read_index,
    texts_of,
)
from genseg_mm.datasets.transforms.load_image import LoadImage
from genseg_mm.registry import DATASETS

_SEPARATORS = {'.csv': ',', '.tsv': '\t'}


@DATASETS.register_module()
class ImageTextDataset(CaptionDataset):
    """Pictures with texts of one's own, for text-to-image generation; see :class:`CaptionDataset`.

    A source is one of these:

    - a folder: pictures (.jpg, .jpeg, .png, .webp) at any depth, with a ``.txt`` or ``.json`` of the same name;
    - a list: ``.jsonl`` (a dict in each line), ``.csv`` or ``.tsv`` (columns with names) with the path of a picture
      and its text; several lines of one picture are its captions;
    - tar shards of WebDataset's layout, uncompressed (see ``tar_shards.py``): their index is built once, and members
      are read at their offset, in any order and by any number of workers. ``img_path`` is an address that
      ``LoadImage`` takes.

    A ``.txt`` is one caption; a ``.json`` and a list may also hold several. What is no whole sample (a picture without
    a text, an empty or unreadable text, a shard that was cut short, ...) is left out, counted in a warning and named in
    ``left_out``. Pictures that turn out to be damaged when they are read are an error that names them, unless
    ``check_images`` found them before.

    Args:
        sources: Folder, list or shard, or several, also as patterns: ``'shards/*.tar'``.
        data_root: Folder that the sources are relative to.
        data_prefix: ``img_path`` is the folder that the paths in lists are relative to.
        image_key: Key or column of the picture's path in lists.
        text_key: Key or column of the text, a string or a list of strings, in lists and ``.json`` files.
        index_dir: Folder, relative to data_root, where indices of shards are kept for the next start. None builds them
            at each start: about 0.1 s for 1000 samples.
        check_images: Decodes every picture once at the start, and leaves out those that cannot be.
        **kwargs: As for :class:`CaptionDataset`.
    """

    def __init__(
        self,
        sources: str | Sequence[str],
        data_root: str = '',
        data_prefix: Mapping = dict(img_path=''),
        image_key: str = 'image',
        text_key: str = 'text',
        index_dir: str | None = None,
        check_images: bool = False,
        **kwargs,
    ) -> None:
        if set(data_prefix) != {'img_path'}:
            raise ValueError(f'data_prefix must be dict(img_path=...), but got {dict(data_prefix)}')
        self.sources = [sources] if isinstance(sources, str) else list(sources)
        if not self.sources or not all(isinstance(source, str) for source in self.sources):
            raise ValueError(
                f'sources must be a folder, list or shard, or several, but got {sources!r}'
            )
        self.image_key, self.text_key = image_key, text_key
        self.index_dir = None if index_dir is None else os.path.join(data_root, index_dir)
        self.check_images = check_images
        super().__init__(
            ann_file='', data_root=str(data_root), data_prefix=dict(data_prefix), **kwargs
        )

    @property
    def _name(self) -> str:
        return f'{type(self).__name__} {short_repr(self.sources)}'

    def read_pictures(self) -> list[dict]:
        """Pictures of all sources in their order, those of folders sorted by name."""
        pictures = [
            picture
            for source in self.sources
            for path in self._existing(source)
            for picture in self._read(path)
        ]
        return self._decodable(pictures) if self.check_images else pictures

    def _existing(self, source: str) -> list[str]:
        path = os.path.join(self.data_root or '', source)
        found = [path] if os.path.exists(path) else sorted(glob.glob(path))
        if not found:
            raise FileNotFoundError(f'source {path!r}: there is no such file or folder')
        return found

    def _read(self, path: str) -> Iterator[dict]:
        ending = os.path.splitext(path)[1].lower()
        if os.path.isdir(path):
            return self._read_folder(path)
        if ending == '.tar':
            return self._read_shard(path)
        if ending == '.jsonl' or ending in _SEPARATORS:
            rows = self._json_rows(path) if ending == '.jsonl' else self._table_rows(path)
            return self._merged(path, rows)
        raise ValueError(
            f'source {path!r} must be a folder or a file that ends with .jsonl, .csv, .tsv or .tar'
        )

    def _read_folder(self, root: str) -> Iterator[dict]:
        for folder, subfolders, names in os.walk(root):
            subfolders.sort()
            endings: dict[str, list[str]] = {}
            for name in sorted(names):
                stem, ending = os.path.splitext(name)
                endings.setdefault(stem, []).append(ending)
            for stem, own in endings.items():
                path = os.path.join(folder, stem)
                images = [ending for ending in own if ending[1:].lower() in IMAGE_ENDINGS]
                texts = [f'.{kind}' for kind in TEXT_ENDINGS if f'.{kind}' in own]
                if not images:
                    if texts:
                        self.leave_out('texts without a picture', path + texts[0])
                    continue
                if not texts:
                    self.leave_out('pictures without a text', path + images[0])
                    continue
                for other in images[1:]:
                    self.leave_out('second pictures of one name', path + other)
                captions = self._captions(path + texts[0])
                if captions:
                    name = os.path.relpath(path, root)
                    yield dict(img_path=path + images[0], img_id=name, captions=captions)

    def _captions(self, path: str) -> list[str]:
        with open(path, 'rb') as file:
            data = file.read()
        try:
            captions = texts_of(data, path.rpartition('.')[2], self.text_key)
        except ValueError as error:
            self.leave_out('unreadable texts', f'{path} ({error})')
            return []
        if not captions:
            self.leave_out('empty texts', path)
        return captions

    def _read_shard(self, path: str) -> Iterator[dict]:
        index = read_index(path, self.text_key, self.index_dir)
        for reason, name in index.left_out:
            self.leave_out(reason, name)
        shard = os.path.splitext(os.path.basename(path))[0]
        for picture in index.pictures:
            key = os.path.splitext(picture.member)[0]
            yield dict(
                img_path=address(path, picture),
                img_id=f'{shard}/{key}',
                captions=picture.captions,
            )

    def _json_rows(self, path: str) -> Iterator[tuple[int, dict]]:
        with open(path, encoding='utf-8-sig') as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise ValueError(f'{path}, line {number} is no JSON: {error}') from error
                if not isinstance(row, dict):
                    raise ValueError(
                        f'{path}, line {number}: expected a dict, but got {short_repr(row)}'
                    )
                yield number, row

    def _table_rows(self, path: str) -> Iterator[tuple[int, dict]]:
        separator = _SEPARATORS[os.path.splitext(path)[1].lower()]
        with open(path, encoding='utf-8-sig', newline='') as file:
            reader = csv.DictReader(file, delimiter=separator, strict=True)
            try:
                for row in reader:
                    yield reader.line_num, row
            except csv.Error as error:
                raise ValueError(f'{path}, line {reader.line_num}: {error}') from error

    def _merged(self, path: str, rows: Iterator[tuple[int, dict]]) -> Iterator[dict]:
        """One picture for each path of a list, in the order of their first lines."""
        captions: dict[str, list[str]] = {}
        for number, row in rows:
            where = f'{path}, line {number}'
            image = row.get(self.image_key)
            if not isinstance(image, str) or not image or self.text_key not in row:
                raise ValueError(
                    f'{where}: expected {self.image_key!r} and {self.text_key!r} (image_key, text_key), but got '
                    f'{short_repr(row)}'
                )
            try:
                own = clean_captions(row[self.text_key])
            except ValueError as error:
                raise ValueError(f'{where}: {error}') from error
            if not own:
                self.leave_out('empty texts', where)
            captions.setdefault(image, []).extend(own)
        listings: dict[str, set[str]] = {}
        for image, own in captions.items():
            full = os.path.join(self.data_prefix['img_path'], image)
            folder, name = os.path.split(full)
            if folder not in listings:  # one listing is faster than a question for every file
                listings[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
            if name not in listings[folder]:
                self.leave_out('pictures that do not exist', full)
            elif own:
                yield dict(img_path=full, img_id=os.path.splitext(image)[0], captions=own)

    def _decodable(self, pictures: list[dict]) -> list[dict]:
        load, whole = LoadImage(), []
        for picture in pictures:
            try:
                load(dict(img_path=picture['img_path']))
            except ValueError as error:
                self.leave_out('damaged pictures', f'{picture["img_path"]} ({error})')
            else:
                whole.append(picture)
        return whole
