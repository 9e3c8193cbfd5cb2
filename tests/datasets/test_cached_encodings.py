"""CachedEncodings on hand-made caches: what is found, what is stale, what is refused."""

import os

import numpy as np
import pytest
import torch
from tiny_datasets import build_refcoco, maker

from genseg_mm.datasets import CachedEncodings, PackGenSegInputs, ShapesDataset, Visit
from genseg_mm.datasets.cached_encodings import ItemsToEncode, image_item, mask_item, prompt_content, split_pipeline
from genseg_mm.datasets.encoding_cache import EncodingCacheWriter, config_key

TRANSFORMS = [
    dict(type='genseg_mm.LoadImage'),
    dict(type='genseg_mm.LoadReferringMask'),
    dict(type='mmcv.Resize', scale=(16, 16), keep_ratio=False),
]
KEY = config_key(TRANSFORMS)


@pytest.fixture
def coco(tmp_path):
    return maker('refcoco')(tmp_path / 'coco')


def make_cache(folder, infos, looks=False, kinds=('image', 'mask', 'prompt')):
    """Item n has image latents n, mask latents n + 0.5 and as many states of value n as its text has words."""
    encoders = {kind: dict(fingerprint=f'of {kind}', settings={}, weights='') for kind in kinds}
    if 'prompt' in encoders:
        encoders['prompt']['looks_at_images'] = looks
    manifest = dict(config='c.py', dtype='float32', encoders=encoders, pipelines={KEY: TRANSFORMS})
    cache = EncodingCacheWriter(folder, manifest)
    contents = {}
    cache.put('prompt', prompt_content(''), dict(states=torch.zeros(1, 2), mask=torch.ones(1) > 0))
    for number, info in enumerate(infos):
        key, state = image_item(info, KEY)
        shapes = dict(ori_shape=[40, 56], img_shape=[16, 16])
        if key not in contents:
            contents[key] = f'im{number}'
            cache.note(key, dict(content=f'im{number}', **state, **shapes))
            cache.put('image', f'im{number}', dict(latents=torch.full((4, 2, 2), float(number))))
        if info.get('task', 'mask') == 'mask':
            cache.note(mask_item(info, KEY), dict(content=f'ma{number}'))
            cache.put('mask', f'ma{number}', dict(latents=torch.full((4, 2, 2), number + 0.5)))
        seen = contents[key] if looks else ''
        states = torch.full((len(info['text'].split()), 2), float(number))
        content = prompt_content(info['text'], seen)
        cache.put('prompt', content, dict(states=states, mask=torch.ones(len(states)) > 0))
    cache.close()


def transform(folder, **kwargs):
    return CachedEncodings(folder=str(folder), transforms=TRANSFORMS, **kwargs)


def items(dataset):
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def test_items_of_files_are_found_without_decoding_them(coco, tmp_path, monkeypatch):
    dataset = build_refcoco(coco, test_mode=True, serialize_data=False)
    infos = items(dataset)
    make_cache(tmp_path / 'cache', infos)
    cached = transform(tmp_path / 'cache')
    monkeypatch.setattr('mmcv.imfrombytes', None)  # decoding would fail
    pictures = {}
    for number, info in enumerate(items(dataset)):
        pictures.setdefault(info['img_path'], float(number))
        words = len(info['text'].split())
        packed = PackGenSegInputs()(cached(info))
        sample = packed['data_samples']
        assert packed['inputs'].shape == (3, 0, 0)
        assert sample.image_latents.unique().tolist() == [pictures[info['img_path']]]
        # Sentences of one object share its mask: the last one noted is that of all of them.
        same = [n for n, other in enumerate(infos) if other['segmentations'] == info['segmentations']]
        assert sample.mask_latents.unique().tolist() == [max(same) + 0.5]
        assert sample.prompt_states.shape == (words, 2) and sample.prompt_mask.tolist() == [True] * words
        assert (sample.ori_shape, sample.img_shape) == ((40, 56), (16, 16))
        assert sample.encoder_fingerprints == {kind: f'of {kind}' for kind in ('image', 'mask', 'prompt')}
        assert 'gt_sem_seg' not in sample and 'empty_prompt_states' not in sample


def test_what_is_not_cached_is_loaded(coco, tmp_path):
    infos = items(build_refcoco(coco, test_mode=True, serialize_data=False))
    make_cache(tmp_path / 'cache', infos)
    info = transform(tmp_path / 'cache', what='prompt')(dict(infos[0]))
    assert info['img'].shape == (16, 16, 3) and info['gt_seg_map'].shape == (16, 16)
    assert info['prompt_states'].unique().tolist() == [0.0] and 'image_latents' not in info
    info = transform(tmp_path / 'cache', what=('image', 'prompt'))(dict(infos[0]))
    assert 0 < info['gt_seg_map'].mean() < 1 and info['image_latents'].unique().tolist() == [0.0]
    assert 'mask_latents' not in info and info['encoder_fingerprints'].keys() == {'image', 'prompt'}


def test_scenes_in_memory_are_found_by_their_pixels(tmp_path):
    settings = dict(num_scenes=2, image_size=32, seed=3, serialize_data=False)
    referring = ShapesDataset(task='referring', expressions='all', **settings)
    captions = ShapesDataset(task='text_to_image', caption='full', **settings)
    infos = items(referring) + items(captions)
    make_cache(tmp_path / 'cache', infos)
    cached = transform(tmp_path / 'cache')
    first = cached(referring.get_data_info(0))
    # Several expressions mean one object and share its mask: the last one noted is that of all.
    masks = [info['gt_seg_map'] for info in infos if info['task'] == 'mask']
    last = max(n for n, mask in enumerate(masks) if np.array_equal(mask, masks[0]))
    assert 'img' not in first and first['mask_latents'].unique().tolist() == [last + 0.5]
    picture = cached(captions.get_data_info(0))
    assert picture['image_latents'].tolist() == first['image_latents'].tolist()  # the same scene
    assert 'mask_latents' not in picture
    assert picture['prompt_states'].unique().tolist() == [float(len(referring))]
    assert picture['empty_prompt_states'].tolist() == [[0.0, 0.0]]
    assert picture['empty_prompt_mask'].tolist() == [True]
    info = referring.get_data_info(0)
    info['img'][0, 0, 0] ^= 1
    with pytest.raises(ValueError, match='image 0 is not in the cache.*c.py --out'):
        cached(info)
    info = referring.get_data_info(0)
    info['gt_seg_map'][0, 0] ^= 1
    with pytest.raises(ValueError, match='the mask of image 0 is not in the cache'):
        cached(info)


def test_prompts_of_an_encoder_that_looks_depend_on_the_picture(coco, tmp_path):
    infos = items(build_refcoco(coco, test_mode=True, serialize_data=False))
    infos = [dict(info, text='the same') for info in infos]
    make_cache(tmp_path / 'cache', infos, looks=True)
    cached = transform(tmp_path / 'cache', what='prompt')
    found = {i['img_path']: cached(dict(i))['prompt_states'].unique().tolist() for i in infos}
    last = {info['img_path']: [float(number)] for number, info in enumerate(infos)}
    assert found == last and len(last) == 3
    picture = dict(infos[0], task='image')  # must not see what it is to generate
    with pytest.raises(ValueError, match="the prompt 'the same' of .*is not in the cache"):
        cached(picture)


def test_a_changed_picture_is_stale(coco, tmp_path):
    infos = items(build_refcoco(coco, test_mode=True, serialize_data=False))
    make_cache(tmp_path / 'cache', infos)
    path = infos[0]['img_path']
    state = os.stat(path)
    cached = transform(tmp_path / 'cache')
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 5))
    with pytest.raises(ValueError, match=f'{path} has changed.*--out {tmp_path}/cache'):
        cached(dict(infos[0]))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert cached(dict(infos[0]))['image_latents'].unique().tolist() == [0.0]
    with open(path, 'ab') as file:
        file.write(b'x')
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(ValueError, match=f'expected {state.st_size} bytes.*but got {state.st_size + 1}'):
        cached(dict(infos[0]))
    os.remove(path)
    with pytest.raises(FileNotFoundError, match='train2014'):
        cached(dict(infos[0]))


def test_members_of_tar_shards_are_told_apart(tmp_path):
    shard = tmp_path / 's.tar'
    shard.write_bytes(b'0123')
    infos = [dict(img_path=f'tar://{shard}#{start}+2/a#1+1/{start}.jpg') for start in (0, 2)]
    (first, state), (second, _) = (image_item(info, KEY) for info in infos)
    assert first != second
    assert state == dict(path=str(shard), size=4, mtime_ns=os.stat(shard).st_mtime_ns)
    with pytest.raises(ValueError, match='s3://a.jpg: expected a local file'):
        image_item(dict(img_path='s3://a.jpg'), KEY)


def test_a_cache_of_other_transforms_or_kinds_is_refused(coco, tmp_path):
    make_cache(
        tmp_path / 'cache', items(build_refcoco(coco, test_mode=True, serialize_data=False))[:1], kinds=('image',)
    )
    folder = str(tmp_path / 'cache')
    other = [*TRANSFORMS[:2], dict(TRANSFORMS[2], scale=(32, 32))]
    with pytest.raises(ValueError, match=r'is stale.*\[16, 16\].*but got.*\[32, 32\].*cache_enc'):
        CachedEncodings(folder, 'image', other)
    with pytest.raises(ValueError, match="no encodings of kind 'mask', but of .'image'.*--what"):
        CachedEncodings(folder, ('image', 'mask'), TRANSFORMS)
    for what in ('pixels', ()):
        with pytest.raises(ValueError, match='what must be of'):
            CachedEncodings(folder, what, TRANSFORMS)
    with pytest.raises(FileNotFoundError, match='no cache of encodings in .*nowhere'):
        CachedEncodings(str(tmp_path / 'nowhere'), 'image', TRANSFORMS)


def test_items_that_nothing_identifies_are_refused(tmp_path):
    with pytest.raises(ValueError, match='without img and img_path'):
        image_item(dict(img_path=''), KEY)
    with pytest.raises(ValueError, match='cannot tell what the mask of x.png is made from'):
        mask_item(dict(img_path='x.png', text='a'), KEY)
    mask = np.zeros((4, 4), np.uint8)
    polygons = dict(segmentations=[[[0, 0, 1, 1, 0, 1]]], height=4, width=4)
    run_lengths = dict(segmentations=[dict(size=[4, 4], counts=b'04')], height=4, width=4)
    keys = [
        mask_item(dict(gt_seg_map=mask), KEY),
        mask_item(dict(gt_seg_map=mask + 1), KEY),
        mask_item(polygons, KEY),
        mask_item(dict(polygons, height=5), KEY),
        mask_item(run_lengths, KEY),
        mask_item(polygons, 'other'),
    ]
    assert len(set(keys)) == 6
    assert mask_item(dict(gt_seg_map=mask.copy(), text='other'), KEY) == keys[0]

    # ReasonSeg's shapes are drawn at the size of the decoded picture, so a changed picture is a changed mask.
    picture = tmp_path / 'x.jpg'
    keys = []
    for size, label in ((3, 255), (3, 255), (3, 0), (4, 255)):
        picture.write_bytes(b'x' * size)
        os.utime(picture, ns=(0, 0))
        shapes = dict(shapes=[dict(points=[[0, 0], [1, 1]], ignore=False)], ignore_label=label)
        keys.append(mask_item(dict(shapes, img_path=str(picture)), KEY))
    assert keys[0] == keys[1] and len(set(keys)) == 3


class TestItemsToEncode:
    def test_all_sentences_of_a_drawing_dataset(self, coco):
        cfg = dict(
            type='genseg_mm.RefCOCODataset',
            data_root=str(coco),
            serialize_data=False,
            data_prefix=dict(img_path='train2014'),
            pipeline=[
                *TRANSFORMS,
                dict(type='genseg_mm.TextPrompt', template='Segment {}.'),
                dict(type='genseg_mm.PackGenSegInputs'),
            ],
        )
        found = ItemsToEncode(cfg)
        assert len(found) == 13 and found.pipeline == KEY and found.folder is None
        texts = [found.info(index)['text'] for index in range(13)]
        assert texts[0].startswith('Segment ') and len(set(texts)) == 13
        found.chosen = [12]
        item = found[0]
        info = found.info(12)
        assert (item['text'], item['task'], item['name']) == (texts[12], 'mask', info['img_path'])
        assert item['img'].shape == (3, 16, 16) and item['mask'].shape == (16, 16)
        assert item['keys'] == {'image': image_item(info, KEY), 'mask': mask_item(info, KEY)}
        assert item['ori_shape'] == (info['height'], info['width'])

    def test_the_folder_of_a_cache_that_is_named_by_its_class(self, tmp_path):
        for kind in ('genseg_mm.CachedEncodings', CachedEncodings):
            pipeline = [dict(type=kind, folder=str(tmp_path)), dict(type=PackGenSegInputs)]
            cfg = dict(type='genseg_mm.ShapesDataset', num_scenes=1, image_size=32, pipeline=pipeline)
            assert ItemsToEncode(cfg).folder == str(tmp_path)

    def test_all_expressions_whatever_part_was_chosen(self):
        cfg = dict(
            type='genseg_mm.ShapesDataset',
            num_scenes=3,
            image_size=32,
            max_items=1,
            serialize_data=False,
            pipeline=[dict(type='genseg_mm.PackGenSegInputs')],
        )
        every = ShapesDataset(num_scenes=3, image_size=32, expressions='all')
        assert len(ItemsToEncode(cfg)) == len(every) > 3
        assert len(ItemsToEncode({**cfg, 'expressions': 'all'})) == 1
        captions = {**cfg, 'task': 'text_to_image', 'max_items': 2}
        found, data = ItemsToEncode(captions), ShapesDataset(3, 32, task='text_to_image')
        texts = {found.info(index)['text'] for index in range(len(found))}
        visits = [Visit(index, visit) for index in range(3) for visit in range(20)]
        assert texts == {data[visit]['text'] for visit in visits} and len(texts) == len(found) > 3
        assert len(ItemsToEncode({**captions, 'caption': 'full'})) == 2

    def test_random_transforms_are_refused_by_name_and_by_what_they_do(self):
        flip = dict(type='mmseg.RandomFlip', prob=0.0)
        with pytest.raises(ValueError, match='RandomFlip draws at random'):
            split_pipeline([flip])
        with pytest.raises(ValueError, match='PhotoMetricDistortion draws at random'):
            CachedEncodings('x', 'image', [dict(type='mmseg.PhotoMetricDistortion')])
        # Nothing in this name says that it draws one of several.
        resize = dict(type='mmcv.RandomResize', scale=(8, 8), ratio_range=(1.0, 2.0))
        choice = dict(type='mmcv.TestTimeAug', transforms=[[resize]])
        cfg = dict(type='genseg_mm.ShapesDataset', num_scenes=1, image_size=32, expressions='all', pipeline=[choice])
        with pytest.raises(ValueError, match=r'TestTimeAug draws at random \(from numpy.random\)'):
            ItemsToEncode(cfg)[0]

    def test_pipelines_are_split_by_the_class_or_by_what_changes_the_text(self):
        text = dict(type='genseg_mm.TextPrompt')
        pack = dict(type='genseg_mm.PackGenSegInputs')
        assert split_pipeline([TRANSFORMS[0], text, TRANSFORMS[2], pack]) == ([text], [TRANSFORMS[0], TRANSFORMS[2]])
        cached = dict(type='genseg_mm.CachedEncodings', folder='f', transforms=TRANSFORMS)
        assert split_pipeline([text, cached, pack]) == ([text], TRANSFORMS)


def test_packing_without_pixels_and_latents_says_what_to_do():
    with pytest.raises(ValueError, match="'x.jpg' has neither img nor cached image_latents"):
        PackGenSegInputs()(dict(img_path='x.jpg'))
