"""Referring data of one's own: a table whose rows are picture, mask and sentences."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from reprlib import repr as short_repr
from typing import Any

from genseg_mm.datasets.annotation_files import picture_path, where_configs_look
from genseg_mm.datasets.leakage import coco_image_id
from genseg_mm.datasets.own_splits import DEFAULT_SHARE, DRAWN, checked_share, drawn_split
from genseg_mm.datasets.row_masks import MASK_VALUES, row_mask
from genseg_mm.datasets.seeded_access import CountedVisits, checked_choice
from genseg_mm.files import parse_json, read_json_lines, read_table
from genseg_mm.files.parquet_tables import read_parquet
from genseg_mm.registry import DATASETS

ENDINGS = ('.jsonl', '.csv', '.tsv', '.parquet')
# What a row says -> the column that says it, unless `columns` has another name.
COLUMNS = dict(image='image', mask='mask', text='text', split='split', ignore='ignore', index='index')
NEEDED = ('image', 'mask', 'text')


@DATASETS.register_module()
class ReferringDataset(CountedVisits):
    """Referring expressions of one's own, from a table: ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet``.

    A row has

    - ``image``: path of the picture, relative to the folder of the pictures;
    - ``mask``: path of a mask file (a PNG of one channel, relative to the folder of the masks), COCO polygons, or an
      RLE; in a csv the latter two are JSON;
    - ``text``: a sentence, or a list of them (in a csv also as JSON);
    - ``split`` (optional): ``train``, ``val``, ...;
    - ``ignore`` (optional): polygons or an RLE of what does not count; with ``mask_values='index'`` also values of the
      mask file; ``true`` leaves the row out;
    - ``index`` (with ``mask_values='index'``): the value of the mask file that is meant, or a list of values.

    In test every (row, sentence) is one item. In training every row is one, whose sentence is drawn anew at each access
    from a generator seeded by (seed, index, visit), as :class:`genseg_mm.RefCOCODataset` draws.

    An item has ``img_path, img_id`` (the picture's path without ending), ``text, sent_id`` (its place in the row),
    ``sentences``, ``ref_id`` (number of the row, or its line), ``row_mask`` and, where it is a file, ``mask_path``, of
    which ``LoadReferringMask`` draws the mask in {0, 1, 255 = ignored} at the size of the decoded picture
    (``LoadImage`` goes before it), ``task='mask'``, ``subset`` (the split), ``seg_fields=[]``, and in training
    ``visit``.

    Sentences that are no text (null, NaN, missing, empty, or with a lone surrogate), rows without any other, and rows
    marked ``ignore`` are left out: ``left_out`` names them by reason, and they are counted in a warning. Everything
    else that is wrong is an error that names file and row.

    Args:
        ann_file: The table.
        data_root: Folder that the other paths are relative to.
        data_prefix: ``img_path`` is the folder of the pictures; ``mask_path`` that of the mask files, by default the
            same.
        mask_values: What mask files hold, which nothing guesses: ``'0/1'``, ``'0/255'`` (black and white), or
            ``'index'`` (several objects, of which the row's ``index`` says the one). Not needed for polygons and RLE.
        columns: Names of the columns where they are others: ``dict(image='file_name', text='caption')``.
        split: Which rows: a value of the column ``split``. Where there is no such column, 'train' and 'val' are drawn
            by the names of the pictures, all rows of a picture on one side. None takes all rows.
        val_share: Share of the pictures of a 'val' that is drawn.
        allow_no_target: Whether a row without a mask, or an empty mask, is a sentence about nothing that is there;
            otherwise it is an error.
        sentence: ``'all'`` (default in test), ``'random'`` (default in training) or ``'first'``.
        exclude_images: Of training; see :class:`genseg_mm.RefCOCODataset`. Only pictures with COCO names can be meant.
        check_images: Missing picture files are an error. Otherwise they are counted in a warning, and an error when
            they are read.
        allow_outside: Whether paths may leave data_root and the folders.
        test_mode: See above.
        **kwargs: As for :class:`CountedVisits`: seed, pipeline, and those of ``mmengine.dataset.BaseDataset``.

    Raises:
        FileNotFoundError: If the table, the folder of the pictures, or with check_images a picture is missing.
        ImportError: If the table is a parquet and pyarrow is missing.
        ValueError: If an argument or a row is wrong, or nothing is left.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        data_prefix: Mapping = dict(img_path=''),
        mask_values: str | None = None,
        columns: Mapping[str, str] | None = None,
        split: str | None = None,
        val_share: float = DEFAULT_SHARE,
        allow_no_target: bool = False,
        sentence: str | None = None,
        exclude_images: str | int | Sequence[str | int] | None = None,
        check_images: bool = True,
        allow_outside: bool = False,
        test_mode: bool = False,
        **kwargs,
    ) -> None:
        sentence = checked_choice('sentence', sentence or ('all' if test_mode else 'random'), test_mode)
        if mask_values not in (None, *MASK_VALUES):
            raise ValueError(f'mask_values must be one of {MASK_VALUES}, but got {mask_values!r}')
        unknown = sorted(set(columns or ()) - set(COLUMNS))
        if unknown:
            raise ValueError(f'columns gives names to {tuple(COLUMNS)}, but got {unknown}')
        if exclude_images is not None and test_mode:
            raise ValueError('exclude_images is for training, but got test_mode=True')
        if os.path.splitext(ann_file)[1].lower() not in ENDINGS:
            raise ValueError(f'ann_file must end with one of {ENDINGS}, but got {ann_file!r}')
        prefix = dict(data_prefix)
        self.mask_folder = prefix.pop('mask_path', prefix.get('img_path', ''))
        self.mask_values, self.columns = mask_values, {**COLUMNS, **(columns or {})}
        self.split, self.val_share, self.sentence = split, checked_share(val_share), sentence
        self.allow_no_target = allow_no_target
        self.check_images, self.allow_outside = check_images, allow_outside
        self.num_rows = 0
        super().__init__(
            ann_file=str(ann_file),
            data_root=str(data_root),
            data_prefix=prefix,
            exclude_images=exclude_images,
            test_mode=test_mode,
            **kwargs,
        )

    def _join_prefix(self) -> None:
        super()._join_prefix()
        self.mask_folder = os.path.join(self.data_root or '', self.mask_folder)

    def load_data_list(self) -> list[dict]:
        """Reads the table; every row of the split is checked, mask files excepted."""
        self.left_out.clear()
        if not os.path.isfile(self.ann_file):
            raise FileNotFoundError(
                f'ann_file: no file {self.ann_file!r}, expected a table with the columns {self._named(NEEDED)}. '
                f'{where_configs_look()}'
            )
        rows = self._of_split(self._read())
        rows = self.drop_excluded(rows, lambda own: (coco_image_id(own[1][self.columns['image']]),), 'rows')
        items = [item for number, row in rows if (item := self._item(number, row)) is not None]
        self.log_left_out()
        if not items:
            found = {reason: len(names) for reason, names in self.left_out.items()}
            raise ValueError(
                f'{self.ann_file}: no row with a sentence is left of split {self.split!r}; left out are '
                f'{found or "none"}'
            )
        layout = f'the pictures that {os.path.basename(self.ann_file)} names'
        self.check_pictures({item['img_path'] for item in items}, layout, self.check_images)
        num_sentences = sum(len(item['sentences']) for item in items)
        num_pictures = len({item['img_path'] for item in items})
        self._log(f'{len(items)} masks with {num_sentences} sentences on {num_pictures} pictures')
        if self.sentence == 'random':
            return items
        count = None if self.sentence == 'all' else 1
        return [
            dict(item, text=text, sent_id=number)
            for item in items
            for number, text in enumerate(item['sentences'][:count])
        ]

    def get_data_info(self, idx: int) -> dict:
        """Item ``idx``; in training with a newly drawn sentence (see the class)."""
        info = super().get_data_info(idx)
        return self._with_drawn_sentence(info) if self.sentence == 'random' else info

    def _read(self) -> list[tuple[int, dict]]:
        """Number and content of every row; each has a picture, and a mask and a text where any row has."""
        rows, present = [], set()
        for number, row in read_rows(self.ann_file):
            present.update(row)
            self._image(number, row)
            rows.append((number, row))
        lacking = [self.columns[key] for key in NEEDED if self.columns[key] not in present]
        if rows and lacking:
            raise ValueError(self._expected(f'{self.ann_file}', present))
        self.num_rows = len(rows)
        return rows

    def _image(self, number: int, row: Mapping) -> str:
        image = row.get(self.columns['image'])
        if not isinstance(image, str) or not image.strip():
            what = set(row) if self.columns['image'] not in row else short_repr(image)
            raise ValueError(self._expected(self._where(number), what))
        return image

    def _expected(self, where: str, came: object) -> str:
        came = sorted(map(str, came)) if isinstance(came, set) else came
        return (
            f'{where}: expected the columns {self._named(NEEDED)} (columns=dict(...) gives them other names), but got '
            f'{came}'
        )

    def _named(self, keys: Sequence[str]) -> tuple[str, ...]:
        return tuple(self.columns[key] for key in keys)

    def _where(self, number: int) -> str:
        return f'{self.ann_file}, {"row" if self.ann_file.lower().endswith(".parquet") else "line"} {number}'

    def _of_split(self, rows: list[tuple[int, dict]]) -> list[tuple[int, dict]]:
        if self.split is None:
            return rows
        key, image = self.columns['split'], self.columns['image']
        splits = Counter(row[key] for _, row in rows if isinstance(row.get(key), str) and row[key].strip())
        if not splits:
            if self.split not in DRAWN:
                raise ValueError(f'{self.ann_file} has no column {key!r}, and split {self.split!r} is none of {DRAWN}')
            pictures = [os.path.normpath(row[image].strip()) for _, row in rows]
            names = drawn_split(pictures, self.split, self.val_share, self.ann_file)
            return [own for own, picture in zip(rows, pictures, strict=True) if picture in names]
        for number, row in rows:
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise ValueError(f'{self._where(number)}: expected a {key}, but got {short_repr(row.get(key))}')
        if self.split not in splits:
            known = ', '.join(f'{name} ({count} rows)' for name, count in sorted(splits.items()))
            raise ValueError(f'{self.ann_file} has no {key} {self.split!r}; there are {known}')
        return [own for own in rows if own[1][key] == self.split]

    def _item(self, number: int, row: Mapping) -> dict | None:
        where = self._where(number)
        values = {key: row.get(column) for key, column in self.columns.items()}
        if values['ignore'] is True or str(values['ignore']).strip().lower() == 'true':
            self.leave_out('rows marked ignore', where)
            return None
        sentences = [
            text.strip()
            for place, value in enumerate(_sentences(values['text'], where))
            if (text := self.usable_text(value, f'{where}, sentence {place}'))
        ]
        if not sentences:
            self.leave_out('rows without a text', where)
            return None
        image = values['image'].strip()
        mask, mask_file = row_mask(
            values['mask'],
            values['ignore'],
            values['index'],
            self.mask_values,
            os.path.basename(where),
            self.allow_no_target,
        )
        item = dict(
            img_path=picture_path(self.data_prefix['img_path'], image, self.data_root, where, self.allow_outside),
            img_id=os.path.splitext(image)[0],
            sentences=sentences,
            ref_id=number,
            row_mask=mask,
            task='mask',
            seg_fields=[],
        )
        if mask_file is not None:
            place = f'{where}: mask'
            item['mask_path'] = picture_path(self.mask_folder, mask_file, self.data_root, place, self.allow_outside)
        return item if self.split is None else dict(item, subset=self.split)

    @property
    def _name(self) -> str:
        return f'{type(self).__name__} {os.path.basename(self.ann_file)} {self.split!r}'


def read_rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a table by the ending of its name, each with its number: of its line, in a parquet from 1.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If it is a parquet and pyarrow is missing.
        ValueError: If it is damaged; names the row.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending == '.parquet':
        return read_parquet(path)
    return read_json_lines(path) if ending == '.jsonl' else read_table(path)


def _sentences(value: Any, where: str) -> list:
    """The sentences of a cell: one, a list, or a list as JSON."""
    if isinstance(value, str) and value.strip().startswith('["'):
        value = parse_json(value.strip(), f'{where}: text', 'is no JSON')
    return value if isinstance(value, list) else [value]
