"""ReasonSegDataset on a tiny folder in the published layout."""

import json
import logging
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from tiny_datasets import maker

from genseg_mm.datasets.reason_seg import ReasonSegDataset
from genseg_mm.datasets.samplers import Visit
from genseg_mm.datasets.transforms import LoadReferringMask
from genseg_mm.datasets.transforms.images import LoadImage

make_tiny_reasonseg = maker('reasonseg')


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    return make_tiny_reasonseg(tmp_path_factory.mktemp('reasonseg'))


@pytest.fixture
def own_root(tmp_path) -> Path:
    """A folder that the test may damage."""
    return make_tiny_reasonseg(tmp_path)


def items(root: Path, split: str, **kwargs) -> list[dict]:
    dataset = ReasonSegDataset(str(root), split=split, serialize_data=False, **kwargs)
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def loaded(item: dict) -> dict:
    return LoadReferringMask()(LoadImage()(item))


def counts(mask: np.ndarray) -> tuple[int, int]:
    """Pixels of the target and of what is to be ignored."""
    assert set(np.unique(mask)) <= {0, 1, 255}
    return int((mask == 1).sum()), int((mask == 255).sum())


def test_item_of_lisa(root):
    first, second = items(root, 'val', test_mode=True)
    shapes = [dict(points=[[5, 40], [25, 40], [25, 60], [5, 60]], ignore=False)]
    assert first == dict(
        img_path=str(root / 'ReasonSeg' / 'val' / '2000.jpg'),
        img_id='2000',
        sentences=['What stands upright?'],
        length='long',
        shapes=shapes,
        ignore_label=255,
        task='mask',
        subset='val',
        seg_fields=[],
        text='What stands upright?',
        sent_id=0,
        sample_idx=0,
    )
    assert (second['text'], second['length'], len(second['shapes'])) == ('two lamps', 'short', 2)


def test_first_wording_or_all(root):
    first = [item['text'] for item in items(root, 'test', test_mode=True)]
    assert first == ['What is missing here?', 'the warm thing']  # LISA
    every = items(root, 'test', test_mode=True, sentence='all')  # UFO
    assert [item['text'] for item in every] == [*first, 'what warms the room']
    assert [item['sent_id'] for item in every] == [0, 0, 1]
    assert [item['length'] for item in every] == ['long', 'short', 'short']
    both = items(root, 'train_val', sentence='all')
    assert [item['subset'] for item in both] == ['train'] * 6 + ['val'] * 3


def test_masks(root):
    """Boxes cover their right and lower border too: 4 to 20 are 17 columns."""
    train = [counts(loaded(item)['gt_seg_map']) for item in items(root, 'train')]
    assert train == [
        (17 * 17, 0),
        (7 * 7, 21 * 21 - 7 * 7),  # a target inside of what is ignored; the 'flag' is nothing
        (33 * 23 - 9 * 9, 9 * 9),  # ignored inside of a target; 8.9 to 40.9 are the columns 8 to 40
    ]
    val = [counts(loaded(item)['gt_seg_map']) for item in items(root, 'val', test_mode=True)]
    assert val == [(21 * 21, 0), (2 * 9 * 9, 0)]
    test = [counts(loaded(item)['gt_seg_map']) for item in items(root, 'test', test_mode=True)]
    assert test[0] == (0, 0) and test[1][1] == 11 * 11
    mask = loaded(items(root, 'train')[2])['gt_seg_map']
    assert (mask[8:31, 8:12] == 1).all() and (mask[12:21, 20:29] == 255).all()
    assert mask[7].sum() == mask[31].sum() == mask[:, 7].sum() == mask[:, 41].sum() == 0


def test_the_mask_lies_on_the_turned_picture(root):
    results = loaded(items(root, 'val', test_mode=True)[0])
    assert cv2.imread(results['img_path'], cv2.IMREAD_IGNORE_ORIENTATION).shape[:2] == (48, 64)
    assert results['img'].shape == (64, 48, 3) == (*results['gt_seg_map'].shape, 3)
    blue = results['img'][..., 0].astype(int)  # the target is drawn in red and blue below 60
    inside = results['gt_seg_map'].astype(bool)
    assert blue[inside].mean() < 60 < 100 < blue[~inside].mean()


def test_training_follows_resize_and_test_does_not(root):
    train = loaded(items(root, 'train')[0])
    resized = mmcv.transforms.Resize(scale=(32, 24), keep_ratio=False)(train)
    assert resized['gt_seg_map'].shape == (24, 32)
    assert abs(int(resized['gt_seg_map'].sum()) - 17 * 17 / 4) < 9
    test = LoadImage()(items(root, 'test', test_mode=True)[1])
    test = LoadReferringMask()(mmcv.transforms.Resize(scale=(32, 24), keep_ratio=False)(test))
    assert test['img'].shape == (24, 32, 3)
    assert test['gt_seg_map'].shape == (48, 64)
    assert counts(test['gt_seg_map'])[1] == 11 * 11


def test_ignored_regions_as_background_in_training_only(root):
    lisa = [counts(loaded(item)['gt_seg_map']) for item in items(root, 'train', train_ignore='background')]
    assert lisa == [(17 * 17, 0), (7 * 7, 0), (33 * 23 - 9 * 9, 0)]
    test = items(root, 'test', test_mode=True, train_ignore='background')[1]
    assert counts(loaded(test)['gt_seg_map'])[1] == 11 * 11


def test_drawn_wording_follows_seed_index_and_visit(root):
    dataset = ReasonSegDataset(str(root), seed=3)
    words = ['Which side would one sit on?', 'the seat', 'where to sit']
    for visit in (0, 1, 5, 10**6):
        drawn = np.random.default_rng([3, 2, visit]).integers(3)
        info = dataset.get_data_info(Visit(2, visit))
        assert (info['text'], info['sent_id'], info['visit']) == (words[drawn], drawn, visit)
    own = [dataset[2]['text'] for _ in range(9)]  # given visits leave the own count alone
    assert own == [dataset[Visit(2, visit)]['text'] for visit in range(9)]
    assert dataset.get_data_info(-1)['img_id'] == '1002'
    with pytest.raises(IndexError, match='3 items'):
        dataset.get_data_info(3)


def test_windows_encoding(root):
    path = root / 'ReasonSeg' / 'train' / '1001.json'
    assert b'caf\xe9' in path.read_bytes()
    assert items(root, 'train', sentence='first')[1]['text'] == 'the café chair'


def test_pictures_without_target_are_named(root, log_lines):
    dataset = ReasonSegDataset(str(root), split='test', test_mode=True)
    assert [Path(path).name for path in dataset.without_target] == ['3000.jpg']
    assert log_lines == [
        (logging.INFO, '2 pictures (1 long, 1 short) with 3 wordings'),
        (logging.WARNING, '1 pictures have no target polygon, so that an empty mask is right: 3000.jpg'),
    ]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(text='one'), r'1000\.json: expected a dict with text .* but text is .one.'),
        (dict(text=[]), r'1000\.json: text must be a list of sentences, but got \[\]'),
        (dict(text=['a', 3]), r'1000\.json, text 1: expected a string, but got 3'),
        (dict(is_sentence=None), r'but is_sentence is None'),
        (dict(shapes=[dict(points=[[1, 2]])]), r'shape 0: expected a dict with a label'),
        (dict(shapes=[dict(label='target', points=[])]), r'shape 0: points must be .* but got \[\]'),
        (dict(shapes=[dict(label='target', points=[1, 2])]), r'points must be \[\[x, y\]'),
        (dict(shapes=[dict(label='target', points=[[1, float('nan')]])]), r'points must be .*nan'),
    ],
)
def test_wrong_annotations(own_root, change, message):
    path = own_root / 'ReasonSeg' / 'train' / '1000.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        items(own_root, 'train')


def test_points_far_outside(own_root):
    item = items(own_root, 'train')[0]
    item['shapes'][0]['points'][1] = [1e9, 5]
    with pytest.raises(ValueError, match=r'1000\.jpg: .*48x64 .*1000000000\.0, 5\.0'):
        loaded(item)
    with pytest.raises(ValueError, match='put LoadImage before it'):
        LoadReferringMask()(items(own_root, 'train')[0])


def test_missing_files(own_root):
    (own_root / 'ReasonSeg' / 'train' / '1002.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 of 3 pictures lack .* first is 1002\.jpg'):
        items(own_root, 'train')
    path = own_root / 'ReasonSeg' / 'test' / '3001.json'
    path.write_text(path.read_text()[:50])
    with pytest.raises(ValueError, match=r'3001\.json is not a whole JSON file'):
        items(own_root, 'test')
    with pytest.raises(FileNotFoundError, match='GENSEG_DATA'):
        items(own_root / 'nowhere', 'val')


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(split='testA'), r"split must be one of \('train', 'val', 'test'\).*'testA'"),
        (dict(split='train_val', test_mode=True), "but got 'train_val'"),
        (dict(sentence='random', test_mode=True), r"one of \('all', 'first'\) with test_mode=True"),
        (dict(train_ignore='drop'), "train_ignore must be 'ignore' or 'background', but got 'drop'"),
        (dict(split='val', exclude_images=[1]), "exclude_images is for split='train'"),
        (dict(data_prefix=dict(img='x')), r'data_prefix must be dict\(img_path=...\)'),
    ],
)
def test_wrong_arguments(root, kwargs, message):
    with pytest.raises(ValueError, match=message):
        ReasonSegDataset(str(root), **kwargs)
