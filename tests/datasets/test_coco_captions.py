"""CocoCaptionsDataset on tiny files in the official layout."""

import json
import logging
import os
from pathlib import Path

import mmcv
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS
from tiny_datasets import CAPTION_PIPELINE, FIRST_CAPTIONS, infos, maker
from torch.utils.data import DataLoader

from genseg_mm.datasets import CocoCaptionsDataset, MixedDataset, RatioInfiniteSampler, RefCOCODataset, Visit

REAL = os.environ.get('GENSEG_REAL_TINY')


@pytest.fixture(scope='session')
def coco(tmp_path_factory) -> Path:
    return maker('captions')(tmp_path_factory.mktemp('captions')) / 'coco'


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder that the test may damage."""
    return maker('captions')(tmp_path) / 'coco'


def build(root: Path, part: str = 'train2017', **kwargs) -> CocoCaptionsDataset:
    return CocoCaptionsDataset(str(root), f'annotations/captions_{part}.json', dict(img_path=f'{part}/'), **kwargs)


def edit(root: Path, change, part: str = 'train2017') -> None:
    path = root / f'annotations/captions_{part}.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ('part', 'ids', 'num_captions'),
    [
        ('train2014', [101, 108, 122, 129, 136], 9),
        ('val2014', [143, 150, 157], 6),
        ('train2017', [101, 108, 122, 129, 136, 143], 12),
        ('val2017', [150, 157], 3),
    ],
)
def test_items_of_all_official_files(coco, part, ids, num_captions):
    assert [info['img_id'] for info in infos(build(coco, part))] == ids
    in_test = infos(build(coco, part, test_mode=True))
    assert len(in_test) == num_captions
    assert list(dict.fromkeys(info['img_id'] for info in in_test)) == ids
    first = infos(build(coco, part, caption='first'))
    start = FIRST_CAPTIONS.index(first[0]['text'])
    assert [info['text'] for info in first] == FIRST_CAPTIONS[start : start + len(ids)]


def test_item_of_test_mode(coco):
    info = build(coco, 'val2014', test_mode=True, subset='captions').get_data_info(1)
    captions = ['A green circle on a grey ground.', 'A picture of 1 shape', 'There is a green circle']
    assert info == dict(
        img_path=str(coco / 'val2014' / 'COCO_val2014_000000000143.jpg'),
        img_id=143,
        height=64,
        width=48,
        text='A picture of 1 shape',
        captions=captions,
        caption_ids=[1430, 1431, 1432],
        task='image',
        subset='captions',
        seg_fields=[],
        sample_idx=1,
    )


def test_caption_follows_seed_index_and_visit(coco):
    dataset = build(coco, seed=5)
    captions = dataset.get_data_info(5)['captions']
    assert len(captions) == 3
    for visit in (0, 1, 7, 10**6):
        drawn = np.random.default_rng([5, 5, visit]).integers(3)
        assert dataset.get_data_info(Visit(5, visit))['text'] == captions[drawn]
    own, fresh = build(coco), build(coco)
    texts = [own[5]['text'] for _ in range(12)]
    assert texts == [fresh[Visit(5, visit)]['text'] for visit in range(12)]
    assert set(texts) == set(captions)
    assert [own[index]['visit'] for index in (0, 5)] == [0, 12]


def test_restarted_workers_go_on_counting(coco):
    dataset, fresh = build(coco), build(coco)
    loader = DataLoader(dataset, batch_size=6, num_workers=1, collate_fn=list)
    for epoch in range(3):
        texts = [item['text'] for item in next(iter(loader))]
        assert texts == [fresh[Visit(index, epoch)]['text'] for index in range(6)]
    subset = dataset.get_subset([5])
    assert subset[0]['img_id'] == 143
    assert subset[0]['visit'] == 1


def test_pipeline_keeps_the_aspect_and_crops_the_middle(coco):
    item = build(coco, pipeline=CAPTION_PIPELINE)[0]  # 64 wide, 48 high: shrunk to 43 x 32, columns 5 ... 36
    image = mmcv.imread(str(coco / 'train2017' / '000000000101.jpg'))
    resized = mmcv.imresize(image, (43, 32), interpolation='area')
    assert np.array_equal(item['inputs'].numpy().transpose(1, 2, 0), resized[:, 6:38])
    sample = item['data_samples']
    assert (sample.task, sample.text) == ('image', FIRST_CAPTIONS[0].lower())
    assert 'gt_sem_seg' not in sample


@pytest.mark.parametrize('size', [(425, 640), (97, 33), (20, 200)])
def test_the_documented_square_fits_any_picture(size):
    crop = dict(type='mmseg.RandomCrop', crop_size=(64, 64))
    resize = {**CAPTION_PIPELINE[1], 'scale': (64, 10**6)}
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    results = dict(img=image, img_shape=size, seg_fields=[])
    short, long = min(size), max(size)
    resized = TRANSFORMS.build(resize)(results)['img']
    assert sorted(resized.shape[:2]) == [64, int(long * 64 / short + 0.5)]
    cropped = TRANSFORMS.build(crop)(results)
    assert cropped['img'].shape == (64, 64, 3)
    places = [
        (y, x)
        for y in range(resized.shape[0] - 63)
        for x in range(resized.shape[1] - 63)
        if np.array_equal(resized[y : y + 64, x : x + 64], cropped['img'])
    ]
    assert len(places) == 1


def test_mixes_one_to_one_with_referring_data(coco, tmp_path):
    refs = maker('refcoco')(tmp_path / 'refs')
    load_mask = dict(type='genseg_mm.LoadReferringMask')
    resize = dict(type='mmcv.Resize', scale=(32, 32), keep_ratio=False)
    referring = RefCOCODataset(
        str(refs), pipeline=[CAPTION_PIPELINE[0], load_mask, resize, *CAPTION_PIPELINE[3:]], split='train'
    )
    mixed = MixedDataset([referring, build(coco, pipeline=CAPTION_PIPELINE)], seed=0)
    sampler = RatioInfiniteSampler(mixed, ratio=[1, 1], group=1, seed=3)
    loader = iter(DataLoader(mixed, batch_size=4, sampler=sampler, collate_fn=list, num_workers=1))
    items = [item for _ in range(25) for item in next(loader)]
    tasks = [item['data_samples'].task for item in items]
    assert abs(tasks.count('image') - 50) < 5 * np.sqrt(100 / 4)
    assert {tuple(item['inputs'].shape) for item in items} == {(3, 32, 32)}
    for item, task in zip(items, tasks, strict=True):
        assert ('gt_sem_seg' in item['data_samples']) == (task == 'mask')


def test_pictures_of_evaluation_sets_are_left_out_in_both_years(own, log_lines):
    maker('refcoco')(own)  # evaluates 122, 129 and 136
    refs = 'refcoco/refs(unc).p'
    for part, ids in (('train2014', [101, 108]), ('train2017', [101, 108, 143])):
        assert [info['img_id'] for info in infos(build(own, part, exclude_images=refs))] == ids
    assert (logging.INFO, 'exclude_images leaves out 3 of 6 pictures') in log_lines
    dataset = build(own, exclude_images=[refs, 143, 'annotations/captions_val2017.json'])
    assert [info['img_id'] for info in infos(dataset)] == [101, 108]
    # A file that numbers its images anew is told by their names.
    edit(own, lambda content: content['images'][2].update(id=5))
    edit(own, lambda c: [a.update(image_id=5) for a in c['annotations'] if a['image_id'] == 122])
    ids = [info['img_id'] for info in infos(build(own, exclude_images=refs))]
    assert ids == [101, 108, 143]
    with pytest.raises(ValueError, match='exclude_images leaves nothing of 3 pictures'):
        build(own, 'val2014', exclude_images=[143, 150, 157])
    with pytest.raises(ValueError, match='for training, but got test_mode=True'):
        build(own, 'val2014', exclude_images=[1], test_mode=True)


def test_what_is_no_item_is_counted_and_named(own, log_lines):
    def change(content):
        content['annotations'] = [entry for entry in content['annotations'] if entry['image_id'] != 108]
        for entry in content['annotations']:
            if entry['id'] == 1431:
                entry['caption'] = ' \n'
            if entry['id'] == 1430:
                entry['caption'] = '  Two \n words '

    edit(own, change)
    (own / 'train2017' / '000000000136.jpg').unlink()
    dataset = build(own)
    assert dataset.left_out == {'empty texts': ['1431'], 'pictures without a caption': ['000000000108.jpg']}
    assert dataset.get_data_info(-1)['captions'] == ['Two words', 'There is a green circle']
    warnings = [line for level, line in log_lines if level == logging.WARNING]
    assert warnings[0].startswith('1 of 5 pictures are missing, the first is ')
    assert warnings[1] == "left out 1 empty texts: ['1431']"
    with pytest.raises(FileNotFoundError, match=r'1 of 5 pictures are missing.*000000000136\.jpg'):
        build(own, check_images=True)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c['annotations'][0].update(image_id=7), 'annotation 1010 is of image 7, which is not in the file'),
        (
            lambda c: c['annotations'][2].update(caption=3),
            r'annotations\[2\]: caption of id \d+: expected a string, but got 3',
        ),
        (lambda c: c['images'][1].pop('height'), r"images\[1\] lacks the key 'height'"),
        (lambda c: c['images'].append(c['images'][0]), 'two images have the same id 101'),
        (lambda c: c.pop('annotations'), 'expected a dict with the lists'),
        (lambda c: c.update(annotations=[]), 'no picture with a caption is left'),
    ],
)
def test_damaged_files_name_the_entry(own, change, message):
    edit(own, change)
    with pytest.raises(ValueError, match=message):
        build(own)


def test_bad_arguments_say_what_came(coco):
    with pytest.raises(FileNotFoundError, match=r"no file .*captions_none\.json', expected"):
        build(coco, 'none')
    with pytest.raises(FileNotFoundError, match='img_path: folder .* does not exist'):
        CocoCaptionsDataset(str(coco), data_prefix=dict(img_path='none'))
    with pytest.raises(ValueError, match=r'must be dict\(img_path=...\), but got'):
        CocoCaptionsDataset(str(coco), data_prefix=dict(img='train2017'))
    with pytest.raises(ValueError, match=r"one of \('all', 'first'\) with test_mode=True, but got"):
        build(coco, caption='random', test_mode=True)
    for index in (6, -7):
        with pytest.raises(IndexError, match='6 items'):
            build(coco).get_data_info(index)


@pytest.mark.skipif(REAL is None, reason='GENSEG_REAL_TINY names the folder of the photographs')
def test_real_photographs():
    dataset = build(Path(REAL, 'coco'), 'val2017', test_mode=True, pipeline=CAPTION_PIPELINE, check_images=True)
    content = json.loads(Path(REAL, 'coco/annotations/captions_val2017.json').read_text())
    assert [info['text'] for info in infos(dataset)] == [entry['caption'] for entry in content['annotations']]
    assert dataset.get_data_info(0)['img_id'] == 785
    assert dataset[0]['data_samples'].ori_shape == (425, 640)
    assert {tuple(item['inputs'].shape) for item in dataset} == {(3, 32, 32)}


@pytest.mark.parametrize('captions_first', [True, False])
def test_the_tiny_refcoco_may_lie_in_the_same_folder(tmp_path, captions_first):
    makers = [lambda: maker('captions')(tmp_path), lambda: maker('refcoco')(tmp_path / 'coco')]
    for make in makers if captions_first else makers[::-1]:
        make()
    pipeline = [dict(type='genseg_mm.LoadImage')]  # refuses pictures of another size
    referring = RefCOCODataset(str(tmp_path / 'coco'), split='train', pipeline=pipeline)
    assert [item['img'].shape[:2] for item in referring][::3] == [(48, 64), (40, 56), (48, 64)]
    shown = build(tmp_path / 'coco', 'train2014', pipeline=pipeline)
    assert [item['img'].shape[:2] for item in shown][:3] == [(48, 64), (40, 56), (48, 64)]
    shared = tmp_path / 'coco' / 'train2014' / 'COCO_train2014_000000000101.jpg'
    alone = maker('refcoco')(tmp_path / 'alone') / 'train2014' / shared.name
    assert shared.read_bytes() == alone.read_bytes()
    listed = {path.name for path in shared.parent.iterdir()}
    assert listed == {path.name for path in alone.parent.iterdir()}


def test_pictures_may_lie_in_folders_below(own):
    def move(content):
        for image in content['images'][:2]:
            image['file_name'] = f'deep/{image["file_name"]}'

    edit(own, move)
    (own / 'train2017' / 'deep').mkdir()
    for number in (101, 108):
        with pytest.raises(FileNotFoundError, match=f'pictures are missing.*/deep/{number:012d}'):
            build(own, check_images=True)
        name = f'{number:012d}.jpg'
        (own / 'train2017' / name).rename(own / 'train2017' / 'deep' / name)
    assert len(build(own, check_images=True)) == 6


def test_items_of_training_know_their_visit(coco):
    dataset = build(coco)
    assert [dataset.get_data_info(Visit(2, 9))['visit'], dataset.get_data_info(2)['visit']] == [9, 0]
    assert 'visit' not in build(coco, test_mode=True).get_data_info(0)
