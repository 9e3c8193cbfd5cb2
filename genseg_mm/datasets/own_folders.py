"""Looks at a folder of data of one's own and says which dataset reads it, with which arguments."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

import numpy as np

from genseg_mm.datasets.annotation_files import with_slashes
from genseg_mm.datasets.instance_folders import MAPS, PICTURES, YAML
from genseg_mm.datasets.instance_maps import INDEX_MODES, read_instance_map
from genseg_mm.datasets.own_layouts import (
    MAP_WORDS,
    TRAIN,
    VAL,
    files_below,
    folder_of_most,
    folder_pairs,
    is_below,
    is_picture,
    near_folders,
    pairs_of_sides,
    sampled,
    sides_of,
)
from genseg_mm.datasets.own_splits import DEFAULT_SHARE
from genseg_mm.datasets.referring_tables import ENDINGS, NEEDED, read_rows
from genseg_mm.datasets.row_masks import MASK_VALUES, WHITE, is_file_name
from genseg_mm.datasets.yolo_polygons import is_label_line, read_data_yaml
from genseg_mm.files import read_columns, read_json, read_lines
from genseg_mm.files.image_headers import read_header
from genseg_mm.files.parquet_tables import parquet_columns

KINDS = ('referring', 'coco', 'yolo', 'maps', 'rows')
BORDER = 255  # of the maps of Pascal VOC
MAX_JSONS = 20  # in a folder: more are one per picture, and nothing that is read here
ALIASES = dict(
    image=('image', 'img', 'image_path', 'img_path', 'file_name', 'filename', 'image_file', 'picture', 'path'),
    text=(
        'text', 'texts', 'sentence', 'sentences', 'expression', 'expressions', 'caption', 'captions', 'phrase',
        'question', 'sent', 'query', 'prompt', 'description',
    ),
    mask=('mask', 'mask_path', 'mask_file', 'segmentation', 'polygons', 'polygon', 'rle', 'segm', 'seg_map_path'),
    split=('split', 'subset', 'set', 'partition'),
    ignore=('ignore', 'ignored', 'ignore_region'),
    index=('index', 'value', 'mask_value', 'label', 'instance_id', 'object_id', 'id'),
)  # fmt: skip
PICTURE_FOLDERS = ('images', 'image', 'imgs', 'img', 'pictures', 'photos', 'JPEGImages', 'leftImg8bit', 'data')
MAP_SUFFIXES = tuple(
    f'{middle}{ending}'
    for middle in ('', '_mask', '_masks', '-mask', '_instance', '_instances', '_ids', '_id', '_label', '_labels',
                   '_gt', '_seg', '_segmentation', '_instanceIds')
    for ending in MAPS
)  # fmt: skip


@dataclass
class OwnData:
    """One kind of data in a folder.

    Attributes:
        kind: One of ``KINDS``.
        path: What it was told by: a file or a folder.
        train: Config of the training dataset, without a pipeline.
        val: The same of validation.
        notes: What was taken for granted, a line each.
    """

    kind: str
    path: str
    train: dict[str, Any]
    val: dict[str, Any]
    notes: list[str] = field(default_factory=list)


class Unusable(ValueError):
    """Of data that are clearly of a kind, and cannot be read: nothing else is taken in their place without a word."""


@contextmanager
def _clearly() -> Iterator[None]:
    """What fails inside is about data whose kind is known."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        raise Unusable(str(error)) from error


def look_at(
    folder: str, val_share: float = DEFAULT_SHARE, kind: str | None = None, **said: Any
) -> tuple[list[OwnData], list[str]]:
    """What a folder holds.

    Args:
        folder: The folder.
        val_share: Share of validation, where there is no split.
        kind: Only this one of ``KINDS``; None looks for all. Maps that go with labels of YOLO or with a table of
            sentences are then not reported as maps of ids.
        **said: Arguments of the dataset that are not to be found out: ``ids``, ``mask_values``, ``map_suffix``.

    Returns:
        Every kind of data that was recognised; and for what looks like some and is none, a line why.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If data that are clearly of one kind cannot be read, and there is another kind, too.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(f'there is no folder {folder}')
    root = os.path.abspath(folder)
    files_below.cache_clear()
    found, refused, unusable = [], [], []
    for name, look in zip(KINDS, (_referring, _coco, _yolo, _maps, _rows), strict=True):
        if kind not in (None, name) or (name == 'maps' and any(own.kind in ('referring', 'yolo') for own in found)):
            continue
        try:
            own = look(root, val_share, {key: value for key, value in said.items() if value is not None})
        except (ValueError, OSError, ImportError) as error:
            refused.append(f'{name}: {error}')
            unusable += refused[-1:] if isinstance(error, Unusable) else []
            continue
        if own is not None:
            found.append(own)
    if found and unusable:
        raise ValueError(f'{folder}: {unusable[0]}; mend that, or --kind {found[0].kind} takes what else is there')
    return found, refused


def _recognised(paths: Sequence[str], read: Callable[[str], Any]) -> dict[str, Any]:
    """What reading files brings, of those that bring something; others may be damaged, if only some are not.

    Raises:
        ValueError: If one is damaged and none brings anything.
    """
    found, damage = {}, None
    for path in paths:
        try:
            own = read(path)
        except (ValueError, ImportError) as error:
            damage = damage or error
            continue
        if own:
            found[path] = own
    if damage is not None and not found:
        raise damage
    return found


def _two(make: Callable[[str], dict], has_split: bool, val_share: float) -> tuple[dict, dict]:
    """Configs of training and validation that differ in their split; one that is drawn has its share."""
    share = {} if has_split or val_share == DEFAULT_SHARE else dict(val_share=val_share)
    train, val = (dict(make(split), split=split, **share) for split in ('train', 'val'))
    return train, val


def _drawn(val_share: float) -> str:
    return f'no split is there: {val_share:.0%} of the pictures are drawn for validation, by their names'


# ---- referring tables


def _referring(root: str, val_share: float, said: dict) -> OwnData | None:
    paths = [os.path.join(folder, name) for folder, names in near_folders(root) for name in names]
    paths = [path for path in paths if path.lower().endswith(ENDINGS)]
    tables = _recognised(paths, _columns)
    if not tables and paths:
        known, came = '; '.join(', '.join(ALIASES[key][:4]) for key in NEEDED), short_repr(_names(paths[0]))
        raise ValueError(f'{paths[0]}: expected columns of pictures, masks and texts (such as {known}), but got {came}')
    if not tables:
        return None
    with _clearly():
        return _of_tables(root, tables, val_share, said)


def _of_tables(root: str, tables: dict[str, dict[str, str]], val_share: float, said: dict) -> OwnData:
    names = sorted(tables)
    sides = sides_of([os.path.relpath(name, root) for name in names]) if len(names) > 1 else None
    train, val = (os.path.join(root, own) for own in sides) if sides else (names[0], names[0])
    notes = [] if sides or len(names) == 1 else [f'of {len(names)} tables the first is taken: {names[0]}']
    config, splits, more = _table_config(train, tables[train], root, said)
    config['ann_file'] = os.path.relpath(train, root)
    if sides:
        other, _, _ = _table_config(val, tables[val], root, said)
        return OwnData('referring', train, config, dict(other, ann_file=os.path.relpath(val, root)), notes + more)
    chosen = sides_of(sorted(splits))
    if chosen:
        notes.append(f'splits as the column says: {chosen[0]} and {chosen[1]}')
        return OwnData('referring', train, dict(config, split=chosen[0]), dict(config, split=chosen[1]), notes + more)
    if splits:
        raise ValueError(f'{train}: expected splits for training and validation, but got {sorted(splits)}')
    pair = _two(lambda split: config, False, val_share)
    return OwnData('referring', train, *pair, [*notes, *more, _drawn(val_share)])


def _columns(path: str) -> dict[str, str] | None:
    """What a table says -> name of its column, if it is one of pictures, masks and texts."""
    names: dict[str, str] = {}  # as they are known here -> as the table writes them
    for name in _names(path):
        names.setdefault(name.strip().lower(), name)
    found = {}
    for key, aliases in ALIASES.items():
        known = (names[alias] for alias in aliases if alias in names)
        found[key] = next((name for name in known if name not in found.values()), None)
    if found['image'] and found['text'] and not found['mask']:
        raise Unusable(
            f'{path}: expected a column of masks ({", ".join(ALIASES["mask"])}), but got only '
            f'{", ".join(names.values())}'
        )
    if None in (found['image'], found['text'], found['mask']):
        return None
    return {key: name for key, name in found.items() if name is not None}


def _names(path: str) -> list[str]:
    if path.lower().endswith('.parquet'):
        return list(parquet_columns(path))
    return list(next(read_rows(path), (0, {}))[1]) if path.lower().endswith('.jsonl') else read_columns(path)


def _table_config(path: str, columns: dict[str, str], root: str, said: dict) -> tuple[dict, set[str], list[str]]:
    """Arguments of ``ReferringDataset`` but the split, the splits that the table has, and notes."""
    images, masks, splits, indexed, came = {}, {}, set(), False, None
    for _, row in read_rows(path):
        image, mask = row.get(columns['image']), row.get(columns['mask'])
        came = image if came is None else came
        if isinstance(image, str):
            images[with_slashes(image.strip())] = None
        if is_file_name(mask):
            masks[with_slashes(mask.strip())] = None
        if isinstance(row.get(columns.get('split', '')), str):
            splits.add(row[columns['split']])
        indexed = indexed or row.get(columns.get('index', '')) not in (None, '')
    if not images:
        raise ValueError(f'{path}: expected names of pictures as {columns["image"]!r}, but got {short_repr(came)}')
    places = [os.path.dirname(path), root, *(os.path.join(os.path.dirname(path), own) for own in PICTURE_FOLDERS)]
    folder = folder_of_most(list(images), places, f'{path}: pictures')
    prefix = dict(img_path=os.path.relpath(folder, root))
    notes, config = [], dict(type='genseg_mm.ReferringDataset', data_root=root)
    if masks:
        near = [os.path.join(os.path.dirname(path), own) for own in ('masks', 'mask', 'labels', 'annotations')]
        mask_folder = folder_of_most(list(masks), [*near, folder, *places], f'{path}: masks')
        if mask_folder != folder:
            prefix['mask_path'] = os.path.relpath(mask_folder, root)
        files = [os.path.join(mask_folder, mask) for mask in sampled(list(masks))]
        values = said.get('mask_values') or _mask_values(files, indexed)
        config['mask_values'] = values
        notes.append(
            f'masks are files of values {values}' + ('' if 'mask_values' in said else f', as in {len(files)} of them')
        )
    if prefix != dict(img_path='.'):
        config['data_prefix'] = prefix
    used = {
        key: name
        for key, name in columns.items()
        if key != name and (key != 'index' or config.get('mask_values') == 'index')
    }
    if used:
        config['columns'] = used
    return config, splits, notes


def _mask_values(files: Sequence[str], indexed: bool) -> str:
    if indexed:
        return 'index'
    values = np.unique(np.concatenate([np.unique(read_instance_map(own)).astype(np.int64) for own in files]))
    means = {'0/1': {0, 1}, '0/255': {0, 255, *WHITE}}
    found = [own for own, known in means.items() if set(values.tolist()) <= known]
    if len(found) != 1:
        shown = ', '.join(map(str, values[:8].tolist())) + ', ...' * (len(values) > 8)
        raise ValueError(
            f'masks such as {files[0]} hold the values {shown}: say what they mean (--mask-values, one of '
            f'{", ".join(MASK_VALUES)}; index needs a column that says whose value is meant)'
        )
    return found[0]


# ---- COCO and LVIS


def _coco(root: str, val_share: float, said: dict) -> OwnData | None:
    jsons = [[os.path.join(folder, name) for name in names if name.lower().endswith('.json')]
             for folder, names in near_folders(root)]  # fmt: skip
    files = _recognised([path for own in jsons if len(own) <= MAX_JSONS for path in own], _coco_pictures)
    if not files:
        return None
    with _clearly():
        return _of_jsons(root, files, val_share)


def _of_jsons(root: str, files: dict[str, list[str]], val_share: float) -> OwnData:
    names = sorted(files)
    sides = sides_of([os.path.relpath(name, root) for name in names]) if len(names) > 1 else None
    train, val = (os.path.join(root, own) for own in sides) if sides else (names[0], names[0])
    train_config, val_config = (_coco_config(own, files[own], root) for own in (train, val))
    if sides:
        return OwnData('coco', train, train_config, val_config)
    notes = [] if len(names) == 1 else [f'of {len(names)} files the first is taken: {names[0]}']
    pair = _two(lambda split: train_config, False, val_share)
    return OwnData('coco', train, *pair, [*notes, _drawn(val_share)])


def _coco_pictures(path: str) -> list[str]:
    """Names of pictures of a json of instances; none of another file."""
    content = read_json(path)
    if not isinstance(content, dict):
        return []
    images, annotations = content.get('images'), content.get('annotations')
    if not isinstance(images, list) or not isinstance(annotations, list):
        return []
    if not any(isinstance(own, dict) and own.get('segmentation') for own in annotations):
        return []
    named = [own for own in images if isinstance(own, dict)]
    names = [own.get('file_name') or '/'.join(str(own.get('coco_url', '')).split('/')[-2:]) for own in named]
    return [with_slashes(name) for name in sampled(names) if isinstance(name, str) and name] if names else []


def _coco_config(path: str, pictures: Sequence[str], root: str) -> dict:
    beside = os.path.dirname(path)
    stem = Path(path).stem
    guesses = [beside, root]
    for place in dict.fromkeys((beside, root)):
        below = sorted(own.path for own in os.scandir(place) if own.is_dir() and not own.name.startswith('.'))
        like = [own for own in below if os.path.basename(own) in stem or os.path.basename(own) in PICTURE_FOLDERS]
        guesses += like + [own for own in below if own not in like]
        guesses += [os.path.join(own, side) for own in like for side in (*TRAIN, *VAL)]
    folder = folder_of_most(pictures, guesses, f'{path}: pictures')
    return dict(
        type='genseg_mm.InstanceFolderDataset',
        data_root=root,
        format='coco',
        images=os.path.relpath(folder, root),
        annotations=os.path.relpath(path, root),
    )


# ---- YOLO


def _yolo(root: str, val_share: float, said: dict) -> OwnData | None:
    base = dict(type='genseg_mm.InstanceFolderDataset', data_root=root, format='yolo')
    for folder, names in near_folders(root):
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith(YAML) and _looks_like_data(path):
                with _clearly():
                    data = read_data_yaml(path)
                has_split = 'train' in data.splits and 'val' in data.splits
                base['annotations'] = os.path.relpath(path, root)
                notes = [f'{len(data.names)} classes: {", ".join(list(data.names.values())[:8])}']
                notes += [] if has_split else [_drawn(val_share)]
                return OwnData('yolo', path, *_two(lambda split: base, has_split, val_share), notes)
    pairs = [
        (pictures, labels)
        for pictures, labels in folder_pairs(root)
        if 'labels' in os.path.relpath(labels, root).split(os.sep)[-2:]
        if _has_label_files(labels) and any(map(is_picture, files_below(pictures)))
    ]
    return _of_pairs('yolo', root, pairs, base, val_share) if pairs else None


def _looks_like_data(path: str) -> bool:
    keys = {line.partition(':')[0] for _, line in read_lines(path) if line[:1].isalpha()}
    return 'names' in keys and bool(keys & {'train', 'val', 'test'})


def _has_label_files(folder: str) -> bool:
    files = sampled([own for own in files_below(folder) if own.endswith('.txt')])
    return any(is_label_line(next(read_lines(own), (0, ''))[1]) for own in files)


def _of_pairs(kind: str, root: str, pairs: Sequence[tuple[str, str]], base: dict, val_share: float) -> OwnData:
    """Data of folders of pictures and of annotations; those of training and validation, or all to be split."""
    pairs = [own for own in pairs if not any(is_below(own, other) for other in pairs)] if len(pairs) > 1 else pairs
    inner = {pictures: (pictures, other) for pictures, other in pairs}
    deeper = pairs_of_sides(root, inner)
    configs = []
    for pictures, other in deeper or [pairs[0]]:
        places = dict(images=os.path.relpath(pictures, root), annotations=os.path.relpath(other, root))
        configs.append(dict(base, **places))
    if deeper:
        return OwnData(kind, configs[0]['annotations'], *configs)
    own = configs[0]
    return OwnData(kind, own['annotations'], *_two(lambda split: own, False, val_share), [_drawn(val_share)])


# ---- maps of ids


def _maps(root: str, val_share: float, said: dict) -> OwnData | None:
    pairs, suffixes = [], {}
    for pictures, maps in folder_pairs(root):
        if any(is_below((pictures, maps), own) for own in pairs):
            continue
        suffix = _suffix_of(pictures, maps, said.get('map_suffix'))
        if suffix is not None and _is_of_maps(pictures, maps, suffix):
            pairs.append((pictures, maps))
            suffixes[maps] = suffix
    if not pairs:
        return None
    base: dict[str, Any] = dict(type='genseg_mm.InstanceFolderDataset', data_root=root, format='maps')
    suffix = suffixes[pairs[0][1]]
    files = sampled([path for own in suffixes for path in files_below(own) if path.lower().endswith(suffix.lower())])
    ids, note = (said['ids'], '') if 'ids' in said else _ids_of(files)
    if suffix != '.png':
        base['map_suffix'] = suffix
    if ids != 'index':
        base['ids'] = ids
    elif _has_borders(files):
        base['void'] = BORDER
        note = f'{BORDER} is taken for borders without an object, as in Pascal VOC (void={BORDER})'
    own = _of_pairs('maps', root, pairs, base, val_share)
    left = sorted({os.path.relpath(maps, root) for pictures, maps in pairs if pictures == pairs[0][0]} - {own.path})
    own.notes += [f'not taken, beside {own.path}: {", ".join(left)}'] if left else []
    own.notes += [note] if note else []
    return own


def _has_borders(files: Sequence[str]) -> bool:
    """Whether maps of a palette have values from 1 on and, far from them, 255 in most: Pascal VOC's borders."""
    if any(own.lower().endswith(('.hdf5', '.h5')) or read_header(own, own).mode != 'P' for own in files):
        return False
    values = [np.unique(read_instance_map(own)) for own in files]
    ids = np.unique(np.concatenate(values))
    return 2 * sum(BORDER in own for own in values) > len(values) and (ids[ids < BORDER].max(initial=0) < BORDER // 2)


def _suffix_of(pictures: str, maps: str, given: str | None) -> str | None:
    """What follows the names of pictures in those of most maps, if anything does."""
    stems = {os.path.splitext(os.path.relpath(own, pictures))[0] for own in files_below(pictures) if is_picture(own)}
    names = [os.path.relpath(own, maps) for own in files_below(maps) if own.lower().endswith(MAPS)]
    if not stems or not names:
        return None
    counts = {
        suffix: sum(name.lower().endswith(suffix.lower()) and name[: -len(suffix)] in stems for name in names)
        for suffix in ([given] if given else MAP_SUFFIXES)
    }
    best = max(counts, key=counts.get)
    return best if counts[best] * 2 > len(stems) else None


def _is_of_maps(pictures: str, maps: str, suffix: str) -> bool:
    """Whether the second of two folders of equal names holds the maps: it says so, or it alone has one channel."""

    def grey(folder: str, ending: Sequence[str] | str) -> bool:
        files = sampled([own for own in files_below(folder) if own.lower().endswith(ending)], 4)
        return all(own.lower().endswith(('.hdf5', '.h5')) or read_header(own, own).mode in INDEX_MODES for own in files)

    def says(folder: str, other: str) -> bool:
        parts = zip(folder.split(os.sep), other.split(os.sep), strict=False)
        return any(MAP_WORDS.search(own) is not None for own, its in parts if own != its)

    if says(maps, pictures) != says(pictures, maps):
        return says(maps, pictures)
    return grey(maps, suffix.lower()) and not grey(pictures, PICTURES)


def _ids_of(files: Sequence[str]) -> tuple[str, str]:
    """What the maps hold, by some of them, and a note."""
    modes = {'index' if own.lower().endswith(('.hdf5', '.h5')) else read_header(own, own).mode for own in files}
    if modes == {'RGB'}:
        return 'rgb', "maps are colours: each colour but black is an instance (ids='rgb')"
    if not modes <= {*INDEX_MODES, 'index'}:
        raise ValueError(f'{files[0]}: expected maps of one channel, or RGB, but got the modes {sorted(modes)}')
    values = [np.unique(read_instance_map(own)) for own in files]
    if all(len(own[own > 0]) <= 1 for own in values) and len(files) > 1:
        marks = sorted({int(own.max()) for own in values if own.size} - {0})
        if not marks:
            return 'index', f'none of {len(files)} maps has an object: all are 0'
        return 'components', (
            f'maps have one value beside 0 ({", ".join(map(str, marks[-3:]))}), which says what is an object and not '
            'which: every connected region is taken for one (--ids index: one instance per picture)'
        )
    return 'index', ''


# ---- rows of Hugging Face's datasets


def _rows(root: str, val_share: float, said: dict) -> OwnData | None:
    if not any(os.path.isfile(os.path.join(root, name)) for name in ('dataset_dict.json', 'state.json')):
        return None
    from genseg_mm.datasets.picture_rows import image_columns, open_rows

    with _clearly():
        table, drawn = open_rows(root, 'train')
        images, maps = image_columns(table)
    config = dict(
        type='genseg_mm.InstanceFolderDataset', data_root=root, format='rows', images=images, annotations=maps
    )
    if said.get('ids', 'index') != 'index':
        config['ids'] = said['ids']
    notes = [f'columns {images!r} and {maps!r}', *([_drawn(val_share)] if drawn else [])]
    return OwnData('rows', root, *_two(lambda split: config, not drawn, val_share), notes)
