"""What RefCOCODataset says about missing, damaged and inconsistent files."""

import logging
import os
import pickle
from pathlib import Path

import pytest
from tiny_refcoco import INSTANCES, REFS, build, edit_instances, edit_refs, make_tiny_refcoco

from genseg_mm.datasets.refcoco import RefCOCODataset
from genseg_mm.datasets.transforms import LoadReferringMask


@pytest.fixture
def own_root(tmp_path) -> Path:
    """A folder that the test may damage."""
    return make_tiny_refcoco(tmp_path / 'coco')


@pytest.fixture
def log_lines(monkeypatch) -> list[tuple[int, str]]:
    lines = []
    monkeypatch.setattr(
        RefCOCODataset, '_log', lambda self, message, level=logging.INFO: lines.append((level, message))
    )
    return lines


def test_missing_files(own_root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere.*GENSEG_DATA'):
        build(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match=r'split_file: no file .*refs\(umd\)\.p.*refs\(unc\)'):
        build(own_root, split_file='refcoco/refs(umd).p')
    with pytest.raises(FileNotFoundError, match=r'ann_file: no file .*other\.json'):
        build(own_root, ann_file='refcoco/other.json')
    with pytest.raises(FileNotFoundError, match=r'folder .*train2015.* does not exist'):
        build(own_root, data_prefix=dict(img_path='train2015'))


def test_missing_picture(own_root, log_lines):
    picture = own_root / 'train2014' / 'COCO_train2014_000000000108.jpg'
    picture.unlink()
    assert len(build(own_root)) == 7
    assert log_lines[0] == (logging.WARNING, f'1 of 3 pictures are missing, the first is {picture}')
    assert len(build(own_root, split='val', check_images=True)) == 2
    with pytest.raises(FileNotFoundError, match=r'1 of 3 pictures .*000000000108\.jpg'):
        build(own_root, check_images=True)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(split='minival'), r'no split .minival.; its splits are testA \(1 refs\), testB'),
        (dict(text_field='tokens'), "text_field must be 'sent' or 'raw', but got 'tokens'"),
        (dict(sentence='last'), "sentence must be one of .*'random'.*but got 'last'"),
        (dict(sentence='random', test_mode=True), "one of .'all', 'first'. with test_mode=True"),
        (dict(data_prefix=dict(img='train2014')), r'data_prefix must be dict\(img_path=...\)'),
    ],
)
def test_wrong_arguments(own_root, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(own_root, **kwargs)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda refs: refs[4].pop('ann_id'), "reference 4 lacks the key 'ann_id'"),
        (lambda refs: refs[4].update(image_id='8'), "4: image_id must be int .* but got '8'"),
        (lambda refs: refs[4].update(ann_id=[1.5]), r'reference 4: ann_id must be of int.*1\.5'),
        (lambda refs: refs[4].update(ann_id=[]), r'reference 4: ann_id must name objects, or be \[-1\]'),
        (lambda refs: refs[4].update(sentences=[]), r'reference 4 \(ref_id 4\) has no sentence'),
        (lambda refs: refs[4]['sentences'][1].update(sent=7), 'sentence 1: sent: expected a string, but got 7'),
        (
            lambda refs: [own.pop('sent') for ref in refs for own in ref['sentences']],
            "reference 0, sentence 0 lacks the key 'sent', as all others do",
        ),
        (lambda refs: refs.__setitem__(4, 'ref'), "reference 4: expected a dict .* but got 'ref'"),
        (lambda refs: refs.clear(), r'expected a list of references, but got \[\]'),
        (
            lambda refs: refs[4].update(ann_id=77),
            r'instances\.json has no annotation 77, asked for by ref_id 4 \(ann_id 77\) of .*refs',
        ),
        (
            lambda refs: refs[4].update(image_id=66),
            r'instances\.json has no image 66, asked for by ref_id 4 \(ann_id 5005\) of .*refs',
        ),
        (
            lambda refs: refs[4].update(ann_id=5001),
            r'annotation 5001 lies in image 101, but ref_id 4 .* expects it in image 108',
        ),
    ],
)  # fmt: skip
def test_wrong_refs(own_root, change, message):
    edit_refs(own_root, change)
    with pytest.raises(ValueError, match=message) as caught:
        build(own_root)
    assert 'refs(unc).p' in str(caught.value)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda found: found.pop('images'), 'but images is missing or no list'),
        (lambda found: found['images'][0].pop('height'), r"images\[0\] lacks the key 'height'"),
        (lambda found: found['annotations'][0].pop('id'), r"annotations\[0\] lacks the key 'id'"),
        (
            lambda found: found['annotations'][0].update(segmentation=[]),
            r'annotation 5001: expected at least one polygon of 3 points, but got \[\]',
        ),
        (
            lambda found: found['annotations'][0].update(segmentation=[[1, 2, 3, 4]]),
            'annotation 5001: expected at least one polygon of 3 points',
        ),
        (
            lambda found: found['annotations'][0].update(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
            r'annotation 5001: expected polygons \[x0, y0',
        ),
        (
            lambda found: found['annotations'][0].update(segmentation=[[1, 2, 3, 4, 5, None]]),
            r'annotation 5001: expected polygons \[x0, y0',
        ),
        (
            lambda found: found['annotations'][0].update(segmentation=dict(counts=[0, 4], size=[2, 2])),
            r'annotation 5001: expected an RLE of the size of image 101, \[48, 64\]',
        ),
    ],
)
def test_wrong_instances(own_root, change, message):
    edit_instances(own_root, change)
    with pytest.raises(ValueError, match=message) as caught:
        build(own_root)
    assert 'instances.json' in str(caught.value)


def test_entries_that_nobody_refers_to_do_not_matter(own_root):
    edit_instances(own_root, lambda found: found['annotations'][2].pop('segmentation'))
    assert len(build(own_root)) == 7


def test_polygons_without_area_are_counted(own_root, log_lines):
    edit_instances(own_root, lambda found: found['annotations'][0]['segmentation'].append([1, 1, 9, 9]))
    info = build(own_root, sentence='first').get_data_info(0)
    assert LoadReferringMask()(info)['gt_seg_map'].sum() == 16 * 16
    assert log_lines[0][0] == logging.WARNING
    assert 'left out 1 polygons of fewer than 3 points' in log_lines[0][1]


def test_truncated_json(own_root):
    text = (own_root / INSTANCES).read_text()
    (own_root / INSTANCES).write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r'instances\.json is not a whole JSON file'):
        build(own_root)


def test_pickle_that_wants_to_execute_code(own_root, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'executed'),)

    (own_root / REFS).write_bytes(pickle.dumps([Attack()], protocol=2))
    with pytest.raises(ValueError, match=r'refs\(unc\)\.p is refused: it asks to load \w+\.mkdir'):
        build(own_root)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['coco']
