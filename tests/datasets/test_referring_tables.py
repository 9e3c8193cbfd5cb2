"""ReferringDataset: every form of table and mask gives the same items; what is wrong is a line with file and row."""

import csv
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils
from tiny_datasets import infos, maker

from genseg_mm.datasets import LoadImage, LoadReferringMask, ReferringDataset, Visit

HEIGHT, WIDTH = 10, 12
POLYGON = [2, 3, 8, 3, 8, 7, 2, 7]
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[3:7, 2:8] = 1
NEEDS_PARQUET = "needs pyarrow: pip install 'genseg_mm[parquet]'"


@pytest.fixture
def root(tmp_path) -> Path:
    """Two pictures and masks of every kind."""
    for name in 'ab':
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(tmp_path / f'{name}.png')
    ids = MASK * 5
    ids[0, :], ids[9, :] = 7, 9
    for name, array in (('zero_one', MASK), ('black_white', MASK * 255), ('ids', ids), ('empty', MASK * 0)):
        Image.fromarray(array).save(tmp_path / f'{name}.png')
    Image.fromarray(np.repeat(MASK[..., None] * 255, 3, 2)).save(tmp_path / 'rgb.png')
    Image.fromarray(MASK.astype(np.uint16) * 65535).save(tmp_path / 'white_16.png')
    Image.fromarray(np.ones((5, 5), np.uint8)).save(tmp_path / 'small.png')
    return tmp_path


def rle() -> dict:
    found = mask_utils.encode(np.asfortranarray(MASK))
    return dict(size=[HEIGHT, WIDTH], counts=found['counts'].decode())


def write(root: Path, rows: list[dict], name: str = 'refs.jsonl') -> Path:
    """A table of rows, by its ending; cells of a csv that are no text are JSON."""
    path = root / name
    if name.endswith('.jsonl'):
        path.write_text('\n'.join(map(json.dumps, rows)) + '\n')
    elif name.endswith('.csv'):
        with io.StringIO() as file:
            table = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator='\n')
            table.writeheader()
            for row in rows:
                table.writerow({k: json.dumps(v) if isinstance(v, (list, dict)) else v for k, v in row.items()})
            path.write_text(file.getvalue())
    else:
        pyarrow = pytest.importorskip('pyarrow', reason=NEEDS_PARQUET)
        import pyarrow.parquet as parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def build(root: Path, name: str = 'refs.jsonl', **kwargs) -> ReferringDataset:
    return ReferringDataset(name, str(root), **{'serialize_data': False, **kwargs})


def mask_of(item: dict) -> np.ndarray:
    return LoadReferringMask()(LoadImage()(dict(item)))['gt_seg_map']


SHAPES = {
    'polygons': [POLYGON],
    'one polygon': POLYGON,
    'points': [[2, 3], [8, 3], [8, 7], [2, 7]],
    'lists of points': [[[2, 3], [8, 3], [8, 7], [2, 7]]],
    'rle': rle(),
    'runs': dict(size=[HEIGHT, WIDTH], counts=[23, *[4, 6] * 5, 4, 43]),
}


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('name', ['refs.jsonl', 'refs.csv'])
def test_polygons_and_rle_draw_the_same_mask(root, shape, name):
    write(root, [dict(image='a.png', mask=SHAPES[shape], text='a box')], name)
    (item,) = infos(build(root, name, test_mode=True))
    assert np.array_equal(mask_of(item), MASK)
    assert (item['text'], item['sent_id'], item['img_id'], item['task']) == ('a box', 0, 'a', 'mask')


@pytest.mark.parametrize(('file', 'values'), [
    ('zero_one', '0/1'), ('black_white', '0/255'), ('rgb', '0/255'), ('white_16', '0/255'), ('ids', 'index'),
])  # fmt: skip
def test_mask_files_by_what_their_values_were_said_to_be(root, file, values):
    row = dict(image='a.png', mask=f'{file}.png', text='a box')
    write(root, [row | (dict(index=5) if values == 'index' else {})])
    (item,) = infos(build(root, mask_values=values, test_mode=True))
    assert np.array_equal(mask_of(item), MASK)


WRONG = {
    ('zero_one', '0/255'): r"zero_one\.png \(refs\.jsonl, line 1\): mask_values='0/255' expects 0 and 255, but got the "
    'values 0, 1; the others are 0/1, index',
    ('black_white', '0/1'): "mask_values='0/1' expects 0 and 1, but got the values 0, 255; the others are 0/255, index",
    ('ids', '0/1'): "mask_values='0/1' expects 0 and 1, but got the values 0, 5, 7, 9",
    ('ids', 'index'): r'expected pixels of the index \[6\], but got the values 0, 5, 7, 9',
    (
        'empty',
        '0/1',
    ): r'empty\.png \(refs\.jsonl, line 1\): expected a mask that shows something of the picture of 10x12',
    ('small', '0/1'): r'expected a mask of the size of .*a\.png, 10x12, but got 5x5',
}


@pytest.mark.parametrize(('file', 'values'), WRONG)
def test_a_wrong_guess_is_a_line_with_the_values_that_came(root, file, values):
    write(root, [dict(image='a.png', mask=f'{file}.png', text='a box', index=6)])
    (item,) = infos(build(root, mask_values=values, test_mode=True))
    with pytest.raises(ValueError, match=WRONG[file, values]):
        mask_of(item)


def test_what_is_ignored(root):
    write(root, [
        dict(image='a.png', mask=POLYGON, text='x', ignore=[[0, 0, 12, 0, 12, 5, 0, 5]]),
        dict(image='a.png', mask='ids.png', text='x', index=[5, 7], ignore=9),
        dict(image='a.png', mask='ids.png', text='x', index=5, ignore=[7, 9]),
        dict(image='a.png', mask=POLYGON, text='x', ignore=True),
        dict(image='a.png', mask=POLYGON, text='x', ignore=False),
    ])  # fmt: skip
    dataset = build(root, mask_values='index', test_mode=True)
    first, second, third, last = map(mask_of, infos(dataset))
    assert dataset.left_out == {'rows marked ignore': [f'{root}/refs.jsonl, line 4']}
    region = np.zeros_like(MASK)
    region[:5] = 255
    assert np.array_equal(first, np.where(MASK == 1, 1, region))
    assert [np.bincount(own.flat, minlength=256)[[1, 255]].tolist() for own in (second, third)] == [[36, 12], [24, 24]]
    assert np.array_equal(last, MASK)


def test_sentences_items_and_draws(root):
    texts = ['a box', 'the box', 'it']
    rows = [dict(image='a.png', mask=POLYGON, text=texts), dict(image='b.png', mask=POLYGON, text=' one ')]
    for name in ('refs.jsonl', 'refs.csv', 'refs.parquet'):
        if name.endswith('parquet'):
            pytest.importorskip('pyarrow', reason=NEEDS_PARQUET)
            rows = [
                dict(row, mask=json.dumps([POLYGON]), text=row['text'] if row['text'] is texts else ['one'])
                for row in rows
            ]
        write(root, rows, name)
        items = infos(build(root, name, test_mode=True))
        assert [(own['text'], own['sent_id'], own['img_id']) for own in items] == [
            ('a box', 0, 'a'), ('the box', 1, 'a'), ('it', 2, 'a'), ('one', 0, 'b'),
        ]  # fmt: skip
        assert [own['text'] for own in infos(build(root, name, test_mode=True, sentence='first'))] == ['a box', 'one']
        dataset = build(root, name)
        assert len(dataset) == 2
        drawn = [dataset.get_data_info(Visit(0, visit))['text'] for visit in range(20)]
        again = pickle.loads(pickle.dumps(dataset))
        assert [again.get_data_info(Visit(0, visit))['text'] for visit in range(20)] == drawn and set(drawn) == set(
            texts
        )
        assert drawn != [build(root, name, seed=1).get_data_info(Visit(0, visit))['text'] for visit in range(20)]


def test_texts_that_are_none_are_left_out(root):
    rows = [
        dict(image='a.png', mask=POLYGON, text=[None, 'kept', '', 'cut \ud83d']),
        dict(image='a.png', mask=POLYGON, text=None),
        dict(image='a.png', mask=POLYGON),
        dict(image='a.png', mask=POLYGON, text=[]),
    ]
    write(root, rows)
    dataset = build(root)
    (item,) = infos(dataset)
    assert item['sentences'] == ['kept']
    counts = {reason: len(names) for reason, names in dataset.left_out.items()}
    assert counts == {'empty texts': 4, 'texts with half a character (a lone surrogate)': 1, 'rows without a text': 3}
    write(root, rows[1:3])
    with pytest.raises(
        ValueError, match=r"no row with a sentence is left of split None; left out are {'empty texts': 2"
    ):
        build(root)


def test_splits(root):
    rows = [dict(image=f'{name}.png', mask=POLYGON, text=f'{name} {n}', split=split)
            for n, (name, split) in enumerate([('a', 'train'), ('b', 'val'), ('a', 'train')])]  # fmt: skip
    write(root, rows)
    assert [own['text'] for own in infos(build(root, split='train'))] == ['a 0', 'a 2']
    assert [(own['text'], own['subset']) for own in infos(build(root, split='val'))] == [('b 1', 'val')]
    assert len(build(root)) == 3 and 'subset' not in infos(build(root))[0]
    with pytest.raises(ValueError, match=r"has no split 'test'; there are train \(2 rows\), val \(1 rows\)"):
        build(root, split='test')
    write(root, [*rows, dict(rows[0], split=None)])
    with pytest.raises(ValueError, match=r'refs\.jsonl, line 4: expected a split, but got None'):
        build(root, split='train')
    write(root, [{key: value for key, value in row.items() if key != 'split'} for row in rows])
    sides = [{own['img_id'] for own in infos(build(root, split=split))} for split in ('train', 'val')]
    assert sorted(map(len, sides)) == [1, 1] and sides[0] != sides[1]  # all rows of a picture on one side
    with pytest.raises(ValueError, match="has no column 'split', and split 'test' is none of"):
        build(root, split='test')


def test_no_target_has_to_be_allowed(root):
    write(root, [dict(image='a.png', mask=None, text='a cat'), dict(image='a.png', mask='empty.png', text='a dog')])
    with pytest.raises(ValueError, match=r'refs\.jsonl, line 1: expected a mask, but got None; allow_no_target=True'):
        build(root, mask_values='0/1')
    items = infos(build(root, mask_values='0/1', allow_no_target=True, test_mode=True))
    assert [int(mask_of(item).sum()) for item in items] == [0, 0]


def test_a_polygon_outside_of_the_picture(root):
    write(
        root,
        [dict(image='a.png', mask=[20, 20, 30, 20, 30, 30], text='x'), dict(image='a.png', mask=[1e6] * 6, text='x')],
    )
    first, second = infos(build(root, test_mode=True))
    with pytest.raises(
        ValueError, match=r'refs\.jsonl, line 1: mask: expected a mask that shows something of .* 10x12'
    ):
        mask_of(first)
    with pytest.raises(ValueError, match=r'line 2: mask: expected coordinates inside of the image of 10x12 .* 1000000'):
        mask_of(second)


def test_other_names_of_columns_and_folders(root):
    (root / 'photos').mkdir()
    (root / 'a.png').rename(root / 'photos/a.png')
    write(root, [dict(file='a.png', seg='zero_one.png', caption='x', part='val')])
    dataset = build(
        root, columns=dict(image='file', mask='seg', text='caption', split='part'), mask_values='0/1', split='val',
        data_prefix=dict(img_path='photos', mask_path='.'), test_mode=True,
    )  # fmt: skip
    assert np.array_equal(mask_of(infos(dataset)[0]), MASK)


ROW = dict(image='a.png', mask=POLYGON, text='x')
ROWS = {
    'no picture': (dict(ROW, image=None), r'line 1: expected the columns .* but got None'),
    'no mask column': (dict(image='a.png', text='x'), r"expected the columns \('image', 'mask', 'text'\)"),
    'a number as text': (dict(ROW, text=3), r'line 1, sentence 0: expected a string, but got 3'),
    'a number as mask': (dict(ROW, mask=3), r'line 1: expected a mask file, polygons or an RLE, but got 3'),
    'two points': (dict(ROW, mask=[[1, 2, 3, 4]]), r'line 1: mask: expected polygons of at least 3 points'),
    'nan': (dict(ROW, mask=[float('nan')] * 6), r'line 1: mask: expected polygons of at least 3 points'),
    'half an RLE': (dict(ROW, mask=dict(size=[1, 2])), r'line 1: mask: expected an RLE with size and counts'),
    'bad JSON': (dict(ROW, mask='[[1, 2'), r'line 1: mask is no JSON'),
    'outside': (dict(ROW, image='/etc/passwd.png'), r'line 1: expected a picture below .* which leads elsewhere'),
    'a mask outside': (dict(ROW, mask='../x.png'), r'line 1: mask: expected a picture below .* which leads elsewhere'),
    'a URL': (dict(ROW, image='http://x/a.png'), r'which leads elsewhere'),
    'unsaid values': (
        dict(ROW, mask='zero_one.png'),
        r'line 1: the mask is a file \(zero_one\.png\), so mask_values has',
    ),
    'ignored text': (dict(ROW, ignore='sky'), r'line 1: ignore must be polygons or an RLE'),
    'ignored value': (dict(ROW, ignore=255), r"line 1: ignore may name values of a mask file with mask_values='index'"),
    'a missing picture': (dict(ROW, image='c.png'), r'1 of 1 pictures are missing, the first is .*c\.png'),
}


@pytest.mark.parametrize('case', ROWS)
def test_rows_that_are_wrong(root, case):
    row, message = ROWS[case]
    write(root, [row])
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build(root, mask_values='0/1' if case == 'a mask outside' else None)


@pytest.mark.parametrize(('kwargs', 'message'), [
    (dict(name='refs.txt'), "ann_file must end with one of .*, but got 'refs.txt'"),
    (dict(name='none.csv'), "ann_file: no file '.*none.csv', expected a table with the columns"),
    (dict(mask_values='0-1'), "mask_values must be one of .*, but got '0-1'"),
    (dict(columns=dict(picture='x')), r"columns gives names to .*, but got \['picture'\]"),
    (dict(test_mode=True, sentence='random'), 'sentence must be one of'),
    (dict(test_mode=True, exclude_images='unc+umd'), 'exclude_images is for training'),
    (dict(data_prefix=dict(img='x')), 'data_prefix must be'),
])  # fmt: skip
def test_wrong_arguments(root, kwargs, message):
    write(root, [ROW])
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build(root, **kwargs)


def test_damaged_parquets(root):
    pytest.importorskip('pyarrow', reason=NEEDS_PARQUET)
    path = write(root, [dict(ROW, mask=json.dumps(POLYGON))] * 50, 'refs.parquet')
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-4], b'', b'PAR1' * 10, whole[:8] + bytes(40) + whole[48:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r'refs\.parquet: expected a whole parquet file, but got: \S'):
            build(root, 'refs.parquet')
    write(root, [dict(ROW, mask=json.dumps(POLYGON), image=3)], 'refs.parquet')
    with pytest.raises(ValueError, match=r'refs\.parquet, row 1: expected the columns .* but got 3'):
        build(root, 'refs.parquet')


def test_a_parquet_that_claims_more_than_is_sensible(root, monkeypatch):
    pytest.importorskip('pyarrow', reason=NEEDS_PARQUET)
    write(root, [dict(ROW, mask=json.dumps(POLYGON))] * 50, 'refs.parquet')
    monkeypatch.setattr('genseg_mm.files.parquet_tables.MAX_PARQUET_BYTES', 100)
    with pytest.raises(ValueError, match=r'refs\.parquet: expected at most 100 bytes of .* once unpacked, but got \d+'):
        build(root, 'refs.parquet')


def test_a_parquet_without_its_package(root, monkeypatch):
    (root / 'refs.parquet').write_bytes(b'PAR1')
    monkeypatch.setitem(__import__('sys').modules, 'pyarrow', None)
    with pytest.raises(ImportError, match=r"refs\.parquet needs pyarrow: pip install 'genseg_mm\[parquet\]'"):
        build(root, 'refs.parquet')


def test_the_tiny_tables_agree(tmp_path):
    made = maker('own')(tmp_path, 6)
    by_mask = infos(build(made / 'referring', 'refs.csv', mask_values='0/255', test_mode=True))
    by_shape = infos(build(made / 'polygons', 'refs.jsonl', test_mode=True))
    assert [own['text'] for own in by_mask] == [own['text'] for own in by_shape] and len(by_mask) > 20
    for one, other in zip(by_mask, by_shape, strict=True):
        exact, drawn = mask_of(one) == 1, mask_of(other) == 1
        assert (exact & drawn).sum() / (exact | drawn).sum() > 0.7  # outlines through pixel centres are smaller
