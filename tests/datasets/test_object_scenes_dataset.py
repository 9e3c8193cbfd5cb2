"""ObjectScenesDataset: determinism, items, kinds held out, paired scenes, grounds, shadows, errors."""

import hashlib
import re
import subprocess
import sys
from collections import Counter
from functools import partial

import numpy as np
import pytest
from PIL import Image

from genseg_mm.datasets import ObjectScenesDataset, Visit
from genseg_mm.datasets.object_bank import CutOut, write_bank
from genseg_mm.datasets.object_expressions import KINDS
from genseg_mm.datasets.scene_grounds import GROUNDS
from genseg_mm.registry import DATASETS

TASKS = ('referring', 'text_to_image', 'instance', 'unlabelled')


def fingerprint(item: dict) -> str:
    digest = hashlib.sha256()
    for key in sorted(item):
        value = item[key]
        digest.update(key.encode())
        digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return digest.hexdigest()


@pytest.fixture
def build(tiny_objects):
    return partial(ObjectScenesDataset, bank=str(tiny_objects))


@pytest.mark.parametrize('task', TASKS)
def test_same_items_in_any_order_size_and_cache(build, task):
    first = build(6, task=task, split='test', test_mode=True)
    again = build(6 if task == 'referring' else 20, task=task, split='test', test_mode=True, cache=True)
    prints = [fingerprint(first[i]) for i in range(len(first))]
    assert [fingerprint(again[i]) for i in reversed(range(len(first)))] == prints[::-1]
    assert len(set(prints)) == len(prints)


@pytest.mark.slow  # imports everything once more
def test_same_items_in_another_process(build, tiny_objects):
    code = (
        'import sys; sys.path.insert(0, sys.argv[1])\n'
        'from test_object_scenes_dataset import ObjectScenesDataset, fingerprint\n'
        "for task in ('referring', 'instance'):\n"
        '    data = ObjectScenesDataset(5, task=task, split="val", seed=3, bank=sys.argv[2], test_mode=True)\n'
        '    print(fingerprint(data[4]), fingerprint(data[0]))\n'
    )
    run = [sys.executable, '-c', code, __file__.rsplit('/', 1)[0], str(tiny_objects)]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    expected = []
    for task in ('referring', 'instance'):
        data = build(5, task=task, split='val', seed=3, test_mode=True)
        expected += [fingerprint(data[4]), fingerprint(data[0])]
    assert out == expected


def test_golden_scene(build):
    objects = build(1, split='test').scene(0).objects
    assert [own.name for own in objects] == ['apple', 'bus', 'red heart', 'cat', 'red heart']
    assert [own.visible for own in objects] == pytest.approx([219, 340, 928, 359, 213], abs=4)
    assert [[other for other, _ in own.hidden_by] for own in objects] == [[], [2, 3], [], [], []]


def test_splits_seeds_and_tasks_differ(build):
    def images(**settings):
        data = build(6, **settings)
        return {data.scene(i).image.tobytes() for i in range(6)}

    tasks = ('referring', 'instance', 'text_to_image')
    groups = [images(split=s, seed=k, task=t) for s in ('train', 'val', 'test') for k in (0, 1) for t in tasks]
    assert len(set().union(*groups)) == 6 * len(groups)
    assert images(task='unlabelled') == images(task='instance')


def test_the_same_composition_with_other_objects(build):
    first, other = (build(30, task='instance', groups=group) for group in ('animal', ['fruit', 'vehicle']))
    names = [{own.name for i in range(30) for own in data.scene(i).objects} for data in (first, other)]
    assert len(names[0]) == 6 and len(names[1]) == 8 and not names[0] & names[1]
    same = 0
    for index in range(30):
        scenes = first.scene(index), other.scene(index)
        assert scenes[0].ground == scenes[1].ground
        extents = [Counter(round(own.extent, 6) for own in scene.objects) for scene in scenes]
        same += extents[0] == extents[1]
        # What is ground in both is the same picture, but for what objects cast on it.
        is_ground = (scenes[0].ids == 0) & (scenes[1].ids == 0)
        changed = (scenes[0].image != scenes[1].image).any(axis=-1)[is_ground].mean()
        assert changed < 0.5
    assert same >= 24  # in others an object is hidden
    again = build(30, task='instance', groups='animal', exclude_names='owl')
    assert {own.name for i in range(30) for own in again.scene(i).objects} == names[0] - {'owl'}


def test_few_kinds_are_some_of_more(build):
    kinds = [set(build(1, num_names=number).cast.names) for number in (2, 5, 23)]
    assert [len(own) for own in kinds] == [2, 5, 23] and kinds[0] < kinds[1] < kinds[2]
    assert set(build(1, num_names=5, names_seed=1).cast.names) != kinds[1]
    data = build(20, num_names=2, task='instance')
    assert {own.name for i in range(20) for own in data.scene(i).objects} == kinds[0]
    with pytest.raises(ValueError, match='num_names must be at most 4, the kinds that are left, but got 5'):
        len(build(1, groups='fruit', num_names=5))


def test_items_follow_the_contract(build):
    item = build(2, (64, 80))[1]
    assert (item['img'].dtype, item['img'].shape) == (np.uint8, (64, 80, 3))
    assert item['img_shape'] == item['ori_shape'] == (64, 80)
    assert (item['gt_seg_map'].dtype, item['gt_instance_map'].dtype) == (np.uint8, np.int32)
    assert item['seg_fields'] == ['gt_seg_map', 'gt_instance_map']
    assert (item['task'], item['subset'], item['img_path'], item['sample_idx']) == ('mask', 'train', '', 1)
    assert len(item['object_names']) == item['gt_instance_map'].max()
    picture = build(2, task='text_to_image')[0]
    assert (picture['task'], picture['seg_fields'], 'gt_instance_map' in picture) == ('image', [], False)
    training, test = (build(2, task='instance', test_mode=mode)[0] for mode in (False, True))
    assert (training['seg_fields'], test['seg_fields']) == (['gt_instance_map'], [])
    assert 'points' not in training and len(test['instances']) == len(test['points']) == len(test['object_names'])
    assert set(build(1, task='unlabelled')[0]) == set(training) - {'gt_instance_map'}
    assert DATASETS.get('ObjectScenesDataset') is ObjectScenesDataset
    keys = set(DATASETS.get('ShapesDataset')(1)[0])
    assert keys <= set(item)


def test_masks_are_the_targets_and_points_lie_in_their_objects(build):
    data = build(4, split='test', test_mode=True, expressions='all')
    empty, several = 0, 0
    for item in data:
        index = item['img_id']
        targets = next(own.targets for own in data.scene_expressions(index) if own.text == item['text'])
        expected = np.isin(item['gt_instance_map'], [number + 1 for number in targets])
        np.testing.assert_array_equal(item['gt_seg_map'], expected)
        empty, several = empty + (not targets), several + (len(targets) > 1)
        assert (item['kind'] == 'no-target') == (not targets)
    assert empty > 20 and several > 10
    for item in build(12, (48, 80), task='instance', split='test', test_mode=True):
        x, y = item['points'][:, 0].astype(int).T
        np.testing.assert_array_equal(item['gt_instance_map'][y, x], item['point_ids'])
        counts = np.bincount(item['gt_instance_map'].ravel())[1:]
        assert item['point_ids'].tolist() == list(range(1, len(counts) + 1)) and counts.min() >= 20 / 96**2 * 48**2


def test_expressions_are_drawn_per_visit_or_listed(build):
    data, fresh = (build(5, seed=7) for _ in range(2))
    accesses = [data[2]['text'] for _ in range(30)]
    assert [fresh[Visit(2, visit)]['text'] for visit in reversed(range(30))] == accesses[::-1]
    every = build(5, seed=7, expressions='all')
    assert set(accesses) <= {own.text for own in every.scene_expressions(2)} and len(set(accesses)) > 10
    each = build(5, split='val', max_items=20)
    assert len(each) == 20 and [item['text'] for item in each] == [
        item['text'] for item in build(5, split='val', max_items=20)
    ]
    assert all(
        len({own.kind for own in found}) == len(found)
        for found in map(build(5, split='val').scene_expressions, range(5))
    )
    names = build(100, kinds=['name', 'ordinal'], kind_weights=dict(name=4))
    kinds = Counter(names[i]['kind'] for i in range(100))
    assert set(kinds) == {'name', 'ordinal'} and kinds['name'] > 2 * kinds['ordinal']


def test_new_wordings_are_never_those_of_training(build):
    old, new = (build(8, split='test', wordings=own, expressions='all') for own in ('train', 'held_out'))
    texts = [{item['text'] for item in data} for data in (old, new)]
    assert not texts[0] & texts[1] and min(map(len, texts)) > 100
    np.testing.assert_array_equal(old.scene(3).image, new.scene(3).image)
    words = [set(re.findall(r'\w+', ' '.join(own))) for own in texts]
    kept = {'kitty', 'hound', 'hooter', 'pippin', 'cab', 'coach', 'dial'}
    assert len(kept & words[1]) > 2 and not kept & words[0]


def test_captions(build):
    data = build(40, task='text_to_image')
    whole = build(40, task='text_to_image', split='val')
    every = build(40, task='text_to_image', caption='all')
    assert {item['text'] for item in every} >= {data[Visit(i, v)]['text'] for i in range(40) for v in range(3)}
    alone = [i for i in range(40) if len(data.scene(i).objects) == 1]
    assert 18 <= len(alone) <= 37
    assert min(max(own.extent for own in data.scene(i).objects) for i in alone) >= 0.6 * 96 * 0.9
    text = whole[0]['text']
    assert text.endswith(whole.scene(0).ground) and text.split()[0] in ('a', 'an', 'two', 'three', 'grapes')


def test_grounds_shadows_and_photographs(build, tmp_path):
    for kind in GROUNDS:
        data = build(2, (48, 64), task='unlabelled', grounds=kind)
        assert data[0]['img'].shape == (48, 64, 3) and data[0]['img'].std() > 1
    shaded, plain = (build(8, task='instance', grounds='flat', shadows=own) for own in (True, False))
    darker = 0
    for index in range(8):
        with_shadow, without = shaded.scene(index), plain.scene(index)
        np.testing.assert_array_equal(with_shadow.ids, without.ids)
        is_ground = with_shadow.ids == 0
        change = with_shadow.image[is_ground].astype(int) - without.image[is_ground]
        assert change.max() <= 1
        darker += (change < -8).any()
    assert darker == 8
    photo = np.full((60, 90, 3), (10, 200, 30), np.uint8)
    (tmp_path / 'more').mkdir()
    Image.fromarray(photo).save(tmp_path / 'more' / 'green.png')
    data = build(30, task='unlabelled', grounds='snow', ground_folder=tmp_path, shadows=False)
    corners = [data[i]['img'][0, 0].astype(int) for i in range(30)]
    green = sum(abs(own - (30, 200, 10)).max() < 40 for own in corners)
    assert 7 <= green <= 23
    for folder, message in (
        (tmp_path / 'none', 'expected a folder of photographs'),
        (tmp_path / 'empty', 'no photograph'),
    ):
        (tmp_path / 'empty').mkdir(exist_ok=True)
        with pytest.raises(FileNotFoundError, match=message):
            build(1, ground_folder=folder)


def test_changing_an_item_does_not_change_the_scene(build):
    data = build(1, task='instance', cache=True)
    before = fingerprint(data[0])
    item = data[0]
    item['img'][:] = 0
    item['gt_instance_map'][:] = 0
    assert fingerprint(data[0]) == before


def test_every_size_shows_the_same_scene(build):
    small, large = (build(6, size, task='instance', split='test') for size in (64, 192))
    for index in range(6):
        pairs = zip(small.scene(index).objects, large.scene(index).objects, strict=False)
        for one, other in pairs:
            assert one.name == other.name and abs(3 * one.center[0] - other.center[0]) < 12


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(task='boxes'), "task must be one of .*'unlabelled'.*but got 'boxes'"),
        (dict(split='dev'), "split must be one of .*but got 'dev'"),
        (dict(kinds=['colour']), "kinds must be one of .*'name'.*but got 'colour'"),
        (dict(kinds=[]), 'kinds must be one of'),
        (dict(kinds=['name'], task='instance'), "task='referring' only, but got task='instance'"),
        (dict(kind_weights={'name': 0}), 'must be positive, but got name=0'),
        (dict(kind_weights={'name': 2}, split='val'), "need expressions='random', but got expressions='each-kind'"),
        (dict(wordings='new'), "wordings must be one of .*but got 'new'"),
        (dict(wordings='held_out', task='instance'), "wordings='held_out' has a meaning for task='referring' only"),
        (dict(expressions='some'), "expressions must be one of .*but got 'some'"),
        (dict(caption='all'), "task='text_to_image' only, but got task='referring'"),
        (dict(grounds='busy'), "grounds must be 'all' or some of .*but got \\['busy'\\]"),
        (dict(shadows='soft'), "shadows must be True, False or None, but got 'soft'"),
        (dict(object_size=(0.5, 0.2)), 'object_size must be two numbers from 0.02 to 1 in order'),
        (dict(num_objects=(0, 2)), 'each of num_objects must be a whole number of at least 1, but got 0'),
        (dict(num_objects=(3,)), 'num_objects must be two numbers from 1 to 20 in order'),
        (dict(image_size=16), 'image_size must be a whole number of at least 32, but got 16'),
        (dict(image_size=(64, 64, 3)), r'image_size must be \(height, width\).*\(64, 64, 3\)'),
        (dict(num_scenes=0), 'num_scenes must be a whole number of at least 1, but got 0'),
        (dict(seed=-1), 'seed must be a whole number of at least 0, but got -1'),
        (dict(num_names=0), 'num_names must be a whole number of at least 1, but got 0'),
        (dict(exclude_images='all'), "exclude_images is for pictures of COCO, but got 'all'"),
        (dict(groups='fruits'), "has no group 'fruits'; did you mean 'fruit'"),
    ],
)
def test_settings_without_a_meaning_are_refused(build, settings, message):
    with pytest.raises(ValueError, match=message):
        len(build(**settings))


def test_kinds_are_listed_once():
    assert len(set(KINDS)) == len(KINDS) and KINDS[-1] == 'no-target'


def test_names_that_say_left_are_not_mirrored(tmp_path):
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[16:48, 4:60] = (90, 90, 90, 255)
    picture[16:48, 4:20] = (255, 255, 255, 255)  # bright on the left
    cuts = [CutOut(name, '', '', (), picture) for name in ('left-facing fist', 'fist')]
    write_bank(tmp_path / 'bank', cuts, '')
    for name, expected in (('left-facing fist', {True}), ('fist', {True, False})):
        data = ObjectScenesDataset(
            20, task='unlabelled', bank=tmp_path / 'bank', names=name, num_objects=(1, 1), object_size=(0.5, 0.6),
            grounds='flat', shadows=False,
        )  # fmt: skip
        found = set()
        for index in range(20):
            scene = data.scene(index)
            bright = np.argwhere((scene.ids == 1) & (scene.image.min(axis=-1) > 190))[:, 1].mean()
            found.add(bool(bright < scene.objects[0].center[0]))
        assert found == expected
