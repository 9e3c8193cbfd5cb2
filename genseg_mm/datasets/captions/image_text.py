"""Pictures with texts from a folder, a list or tar shards."""

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from reprlib import repr as short_repr

from genseg_mm.datasets.annotation_files import ExistingFiles, folders_below, picture_path
from genseg_mm.datasets.captions.caption_dataset import CaptionDataset
from genseg_mm.datasets.captions.tar_shards import (
    IMAGE_ENDINGS,
    MAX_TEXT_BYTES,
    TEXT_ENDINGS,
    address,
    clean_captions,
    read_index,
    texts_of,
)
from genseg_mm.datasets.transforms.load_image import LoadImage
from genseg_mm.files import has_lone_surrogate, read_bytes, read_json_lines, read_table
from genseg_mm.registry import DATASETS

_TABLES = ('.csv', '.tsv')


@DATASETS.register_module()
class ImageTextDataset(CaptionDataset):
    """Pictures with texts of one's own, for text-to-image generation; see :class:`CaptionDataset`.

    A source is one of these:

    - a folder: pictures (.jpg, .jpeg, .png, .webp) at any depth, with a ``.txt`` or ``.json`` of the same name; links
      to folders are followed, hidden files (``._*`` of macOS) are no data;
    - a list: ``.jsonl`` (a dict in each line), ``.csv`` or ``.tsv`` (columns with names; a tsv has no quoting) with the
      path of a picture and its text; several lines of one picture are its captions;
    - tar shards of WebDataset's layout, uncompressed (see ``tar_shards.py``): their index is built once, and members
      are read at their offset, in any order and by any number of workers. ``img_path`` is an address that
      ``LoadImage`` takes.

    A ``.txt`` is one caption; a ``.json`` and a list may also hold several. What is no whole sample (a picture without
    a text, an empty or unreadable text, a shard that was cut short, ...) is left out, counted in a warning and named in
    ``left_out``; so is a row of a list whose text is null, NaN, empty or missing. A row with another type, or a damaged
    list, is an error that names the line. Texts are UTF-8, or what their byte order mark says. Pictures that turn out
    to be damaged when they are read are an error that names them, unless ``check_images`` found them before.

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
        self.sources = [sources] if isinstance(sources, str) else list(sources)
        if not self.sources or not all(isinstance(source, str) for source in self.sources):
            raise ValueError(f'sources must be a folder, list or shard, or several, but got {sources!r}')
        self.image_key, self.text_key = image_key, text_key
        self.index_dir = None if index_dir is None else os.path.join(data_root, index_dir)
        self.check_images = check_images
        super().__init__(ann_file='', data_root=str(data_root), data_prefix=data_prefix, **kwargs)

    @property
    def _name(self) -> str:
        return f'{type(self).__name__} {short_repr(self.sources)}'

    def read_pictures(self) -> list[dict]:
        """Pictures of all sources in their order, those of folders sorted by name."""
        pictures = [
            picture for source in self.sources for path in self._existing(source) for picture in self._read(path)
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
        if ending == '.jsonl' or ending in _TABLES:
            rows = read_json_lines(path) if ending == '.jsonl' else read_table(path)
            return self._merged(path, rows)
        raise ValueError(f'source {path!r} must be a folder or a file that ends with .jsonl, .csv, .tsv or .tar')

    def _read_folder(self, root: str) -> Iterator[dict]:
        for folder, names in folders_below(root):
            endings: dict[str, list[str]] = {}
            for name in names:
                stem, ending = os.path.splitext(name)
                endings.setdefault(stem, []).append(ending)
            for stem, own in endings.items():
                path = os.path.join(folder, stem)
                images = [ending for ending in own if ending[1:].lower() in IMAGE_ENDINGS]
                texts = [f'.{kind}' for kind in TEXT_ENDINGS if f'.{kind}' in own]
                if has_lone_surrogate(path) and (images or texts):
                    self.leave_out('files with a name that is no UTF-8', path)
                    continue
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
        try:
            data = read_bytes(path, MAX_TEXT_BYTES)
            captions, reasons = texts_of(data, path.rpartition('.')[2], self.text_key)
        except ValueError as error:
            self.leave_out('unreadable texts', f'{path} ({error})')
            return []
        for reason in reasons:
            self.leave_out(reason, path)
        return captions

    def _read_shard(self, path: str) -> Iterator[dict]:
        index = read_index(path, self.text_key, self.index_dir)
        for reason, name in index.left_out:
            self.leave_out(reason, name)
        shard = os.path.splitext(os.path.basename(path))[0]
        for picture in index.pictures:
            key = os.path.splitext(picture.member)[0]
            yield dict(img_path=address(path, picture), img_id=f'{shard}/{key}', captions=picture.captions)

    def _merged(self, path: str, rows: Iterator[tuple[int, dict]]) -> Iterator[dict]:
        """One picture for each path of a list, in the order of their first lines."""
        captions: dict[str, list[str]] = {}
        ids: dict[str, str] = {}
        lacking, has_texts = '', False
        for number, row in rows:
            where = f'{path}, line {number}'
            image = row.get(self.image_key)
            if not isinstance(image, str) or not image:
                raise ValueError(self._expected(where, row))
            has_texts = has_texts or self.text_key in row
            if not has_texts:  # the key is wrong, unless a later row has it
                lacking = lacking or self._expected(where, row)
            own, reasons = clean_captions(row.get(self.text_key), where)
            for reason in reasons:
                self.leave_out(reason, where)
            full = picture_path(self.data_prefix['img_path'], image, self.data_root, where, self.allow_outside)
            captions.setdefault(full, []).extend(own)
            ids.setdefault(full, os.path.splitext(image)[0])
        if not has_texts and lacking:
            raise ValueError(lacking)
        files = ExistingFiles()
        for full, own in captions.items():
            if full not in files:
                self.leave_out('pictures that do not exist', full)
            elif own:
                yield dict(img_path=full, img_id=ids[full], captions=own)

    def _expected(self, where: str, row: Mapping) -> str:
        return (
            f'{where}: expected {self.image_key!r} and {self.text_key!r} (image_key, text_key), but got '
            f'{short_repr(row)}'
        )

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
