"""SampleResults: rows worked out by hand, the file, and files that are none."""

import json
import math
import os
import zipfile
from fractions import Fraction

import numpy as np
import pytest

from genseg_mm.evaluation import SampleResults

ROWS = dict(
    items=['val/a.jpg#sent 1', 'val/a.jpg#sent 2', 'val/b.jpg#sent 3'],
    index=np.array([0, 1, 2]),
    values=dict(
        iou=np.array([0.5, 0.25, 1.0]),
        intersection=np.array([10, 1, 70_000]),
        union=np.array([20, 4, 70_000]),
        hit=np.array([True, False, True]),
        shift=np.array([-3, 0, 300]),
    ),
    groups=dict(kind=['size', '', 'größe'], subset=['val', 'val', 'val']),
    aggregates=dict(mIoU=('mean', 'iou'), oIoU=('ratio', 'intersection', 'union'), Pr=['mean', 'hit']),
)


def changed(**kwargs) -> dict:
    return {**ROWS, **kwargs}


def test_metrics_by_hand():
    rows = SampleResults(**ROWS)
    assert len(rows) == 3
    assert rows.metric('mIoU') == 100 * 1.75 / 3
    assert rows.metric('oIoU') == 100 * 70_011 / 70_024
    assert rows.metric('Pr') == 100 * 2 / 3
    assert rows.metric('oIoU', [0, 1]) == 100 * 11 / 24
    assert rows.metric('mIoU', np.array([False, True, True])) == 62.5
    assert math.isnan(rows.metric('mIoU', [])) and math.isnan(rows.metric('oIoU', []))
    assert rows.pictures == ['val/a.jpg', 'val/a.jpg', 'val/b.jpg']
    assert rows.aggregates['Pr'] == ('mean', 'hit')
    with pytest.raises(ValueError, match=r"must be one of \['Pr', 'mIoU', 'oIoU'\], but got 'AP'"):
        rows.metric('AP')


def test_a_mean_does_not_depend_on_the_order_and_is_correctly_rounded():
    values = np.random.default_rng(0).random(1001)
    exact = 100 * float(sum(map(Fraction, values.tolist()))) / 1001
    for step in (1, -1):
        items = [f'{number}' for number in range(1001)]
        rows = SampleResults(items, np.arange(1001), dict(iou=values[::step]), {}, dict(mIoU=('mean', 'iou')))
        assert rows.metric('mIoU') == exact


def test_what_was_saved_is_read(tmp_path):
    rows, path = SampleResults(**ROWS), tmp_path / 'new' / 'samples.npz'
    rows.save(path)
    read = SampleResults.load(path)
    assert (read.items, read.groups, read.aggregates) == (rows.items, rows.groups, rows.aggregates)
    assert read.index.tolist() == [0, 1, 2] and read.index.dtype == np.int64
    assert {key: own.tolist() for key, own in read.values.items()} == {
        'iou': [0.5, 0.25, 1.0],
        'intersection': [10, 1, 70_000],
        'union': [20, 4, 70_000],
        'hit': [1, 0, 1],
        'shift': [-3, 0, 300],
    }
    assert {str(own.dtype) for own in read.values.values()} == {'float64', 'int64'}
    assert read.metric('oIoU') == rows.metric('oIoU')
    assert os.listdir(path.parent) == ['samples.npz']
    before = path.read_bytes()
    rows.save(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize('value', [0, 255, 256, 2**32, 2**62, -1, -(2**40)])
def test_whole_numbers_survive_in_any_size(tmp_path, value):
    rows = SampleResults(['a', 'b'], [0, 1], dict(count=np.array([value, -1])), {}, {})
    rows.save(tmp_path / 's.npz')
    assert SampleResults.load(tmp_path / 's.npz').values['count'].tolist() == [value, -1]


def test_no_rows_and_odd_names(tmp_path):
    SampleResults([], [], {}, {}, {}).save(tmp_path / 's.npz')
    assert len(SampleResults.load(tmp_path / 's.npz')) == 0
    odd = SampleResults(['\udcff#1', 'ö#2'], [4, 4], dict(iou=[0.0, 1.0]), {}, {})
    odd.save(tmp_path / 's.npz')
    assert SampleResults.load(tmp_path / 's.npz').items == ['\udcff#1', 'ö#2']


def test_refcoco_val_takes_under_25_bytes_per_sentence(tmp_path):
    rng, number = np.random.default_rng(0), 10_834
    union = rng.integers(500, 60_000, number)
    intersection = (union * rng.beta(5, 1, number)).astype(int)
    iou = intersection / union
    pictures = np.sort(rng.integers(0, 1500, number)) * 387 + 9
    rows = SampleResults(
        [f'val/COCO_train2014_{own:012d}.jpg#sent {row}' for row, own in enumerate(pictures)],
        np.arange(number),
        dict(iou=iou, intersection=intersection, union=union, predicted=union, target=union)
        | {f'Pr@0.{tenth}': iou >= tenth / 10 for tenth in range(5, 10)},
        dict(words=rng.choice(['1-2 words', '3-5 words', '6-8 words'], number).tolist()),
        dict(oIoU=('ratio', 'intersection', 'union')),
    )
    rows.save(tmp_path / 's.npz')
    assert os.path.getsize(tmp_path / 's.npz') / number < 25


def test_take_keeps_rows_together():
    rows = SampleResults(**ROWS).take([2, 0])
    assert rows.items == ['val/b.jpg#sent 3', 'val/a.jpg#sent 1']
    assert rows.index.tolist() == [2, 0]
    assert rows.values['union'].tolist() == [70_000, 20]
    assert rows.groups['kind'] == ['größe', 'size']


@pytest.mark.parametrize(
    ('bad', 'message'),
    [
        (dict(items=['a', 'b', 'a']), "items must be unique, but got 'a' more than once"),
        (dict(items=['a', 'b']), r'index must have one number for each of 2 items, .* \(3,\)'),
        (dict(items=['a', 'b', 3]), 'items must be texts, but got 3'),
        (dict(index=[0.0, 1.0, 2.0]), 'index must be of integers, but got float64'),
        (dict(values=dict(iou=[1.0, math.nan, 0.0])), r"values\['iou'\] must be finite, .* nan in row 1"),
        (dict(values=dict(iou=['a', 'b', 'c'])), r"values\['iou'\] must be of numbers, but got <U1"),
        (dict(values=dict(iou=[[1.0], [1.0], [1.0]])), r'for each of 3 items, but got the shape \(3, 1\)'),
        (dict(groups=dict(kind=['a', 'b'])), r"groups\['kind'\] must have one text for each of 3 items"),
        (dict(groups=dict(kind=['a', 'b', None])), r"groups\['kind'\] must be texts, but got None"),
        (dict(aggregates=dict(x=('median', 'iou'))), r"aggregates\['x'\] must be .* \('median', 'iou'\)"),
        (dict(aggregates=dict(x=('ratio', 'union'))), r"aggregates\['x'\] must be .*ratio"),
        (dict(aggregates=dict(x=('mean', 'dice'))), "needs the column 'dice', but values are"),
        (dict(aggregates=dict(x=('ratio', 'iou', 'union'))), "of sums of integers, but 'iou' is of fractions"),
    ],
)  # fmt: skip
def test_wrong_rows(bad, message):
    with pytest.raises(ValueError, match=message):
        SampleResults(**changed(**bad))


def test_wrong_files_are_named(tmp_path):
    path = tmp_path / 'samples.npz'
    with pytest.raises(FileNotFoundError, match=f"no file '{path}'.*sample_file"):
        SampleResults.load(path)
    SampleResults(**ROWS).save(path)
    whole = path.read_bytes()
    for content in (whole[:-200], whole[: len(whole) // 2], b'', b'no archive', b'PK\x03\x04'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f'{path}: not a'):
            SampleResults.load(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(ValueError, match=f'{path}: not a whole file of sample results'):
        SampleResults.load(path)


def rewritten(path, **arrays) -> None:
    with np.load(path) as archive:
        content = {key: archive[key] for key in archive.files}
    np.savez(path, **{**content, **arrays})


def test_files_that_were_tampered_with(tmp_path):
    path = tmp_path / 'samples.npz'
    SampleResults(**ROWS).save(path)
    rewritten(path, **{'value.iou': np.array([0.5, 0.25])})
    with pytest.raises(ValueError, match=rf"{path}: .*values\['iou'\] must have one number"):
        SampleResults.load(path)
    SampleResults(**ROWS).save(path)
    rewritten(path, **{'group.kind': np.array([0, 1, 9])})
    with pytest.raises(ValueError, match=rf"{path}: .*groups\['kind'\]: a number lies outside"):
        SampleResults.load(path)
    SampleResults(**ROWS).save(path)
    rewritten(path, **{'value.iou': np.array([{}, {}, {}], dtype=object)})
    with pytest.raises(ValueError, match=f'{path}: .*value.iou.npy holds objects'):
        SampleResults.load(path)
    for texts in (b'[]', b'{"schema": 2}', b'{"schema": 1, "items": 3, "groups": {}}'):
        SampleResults(**ROWS).save(path)
        rewritten(path, texts=np.frombuffer(texts, np.uint8))
        with pytest.raises(ValueError, match=f'{path}: not a'):
            SampleResults.load(path)


def test_texts_are_json(tmp_path):
    SampleResults(**ROWS).save(tmp_path / 's.npz')
    with np.load(tmp_path / 's.npz', allow_pickle=False) as archive:
        texts = json.loads(archive['texts'].tobytes())
        assert archive['value.union'].dtype == np.uint32
    assert texts['aggregates'] == {
        'mIoU': ['mean', 'iou'], 'oIoU': ['ratio', 'intersection', 'union'], 'Pr': ['mean', 'hit'],
    }  # fmt: skip
    assert texts['groups'] == dict(kind=['', 'größe', 'size'], subset=['val'])


NEGATIVE = "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"


@pytest.mark.parametrize('header', ['(' * 5000, '{"descr":', NEGATIVE])
def test_odd_headers_of_arrays_are_named(tmp_path, header):
    with zipfile.ZipFile(tmp_path / 's.npz', 'w') as archive:
        text = f'{header}\n'.encode()
        archive.writestr('a.npy', b'\x93NUMPY\x01\x00' + len(text).to_bytes(2, 'little') + text)
    with pytest.raises(ValueError, match=r's\.npz') as error:
        SampleResults.load(tmp_path / 's.npz')
    assert '\n' not in str(error.value)
