"""ShapesDataset: determinism, items, settings, visits, points, errors."""

import hashlib
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from genseg_mm.datasets.samplers import Visit
from genseg_mm.datasets.shape_scenes import SEEN_SHAPES, UNSEEN_SHAPES
from genseg_mm.datasets.shapes_dataset import ShapesDataset, caption
from genseg_mm.datasets.textured_scenes import SEEN_TEXTURED, UNSEEN_TEXTURED
from genseg_mm.registry import DATASETS

TASKS = ('referring', 'text_to_image', 'instance')


def fingerprint(item: dict) -> str:
    digest = hashlib.sha256()
    for key in sorted(item):
        value = item[key]
        digest.update(key.encode())
        digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return digest.hexdigest()


@pytest.mark.parametrize('task', TASKS)
def test_same_items_in_any_order_size_and_cache(task):
    first = ShapesDataset(8, task=task, split='test', test_mode=True)
    again = ShapesDataset(30, task=task, split='test', test_mode=True, cache=False)
    prints = [fingerprint(first[i]) for i in range(len(first))]
    assert [fingerprint(again[i]) for i in reversed(range(len(first)))] == prints[::-1]
    assert len(set(prints)) == len(prints)


def test_same_items_in_another_process():
    code = (
        'import sys; sys.path.insert(0, sys.argv[1])\n'
        'from test_shapes_dataset import ShapesDataset, fingerprint\n'
        "for task in ('referring', 'instance'):\n"
        '    data = ShapesDataset(5, task=task, split="val", seed=3, test_mode=True)\n'
        '    print(fingerprint(data[4]), fingerprint(data[0]))\n'
    )
    run = [sys.executable, '-c', code, __file__.rsplit('/', 1)[0]]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    expected = []
    for task in ('referring', 'instance'):
        data = ShapesDataset(5, task=task, split='val', seed=3, test_mode=True)
        expected += [fingerprint(data[4]), fingerprint(data[0])]
    assert out == expected


def test_golden_scene():
    objects = ShapesDataset(1, split='test').scene(0).objects
    assert [(o.size, o.color, o.shape, o.visible) for o in objects] == [
        ('large', 'orange', 'square', 640),
        ('large', 'green', 'cross', 434),
    ]
    objects = ShapesDataset(1, split='test', task='instance').scene(0).objects
    assert [(o.shape, o.visible) for o in objects] == [('rectangle', 586), ('worm', 196)]


@pytest.mark.parametrize('task', ['referring', 'instance'])
def test_splits_seeds_and_scenes_differ(task):
    def images(**settings):
        data = ShapesDataset(12, task=task, **settings)
        return {data.scene(i).image.tobytes() for i in range(12)}

    groups = [images(split=s, seed=k) for s in ('train', 'val', 'test') for k in (0, 1)]
    assert len(set().union(*groups)) == 12 * len(groups)


def test_referring_and_text_to_image_share_scenes():
    referring, image = (ShapesDataset(3, task=task) for task in ('referring', 'text_to_image'))
    np.testing.assert_array_equal(referring[2]['img'], image[2]['img'])
    assert image[2]['text'] == caption(referring.scene(2))


def test_kinds_max_items_and_every_scene_has_an_expression():
    everything = ShapesDataset(40, split='val')
    assert len(everything) == sum(len(everything.scene_expressions(i)) for i in range(40))
    some = ShapesDataset(40, split='val', max_items=25)
    items = [(x['img_id'], x['text']) for x in some]
    assert len(items) == 25
    assert items == sorted(set(items) & {(x['img_id'], x['text']) for x in everything}, key=items.index)
    assert [(x['img_id'], x['text']) for x in ShapesDataset(40, split='val', max_items=25)] == items
    sizes = ShapesDataset(40, split='val', kinds=['size'])
    assert {x['kind'] for x in sizes} == {'size-shape', 'size-color-shape'}
    shape = ShapesDataset(300, kinds='shape', expressions='random')
    assert {shape[i]['kind'] for i in range(300)} == {'shape'}


def test_expression_is_redrawn_per_visit():
    data, fresh = (ShapesDataset(5, seed=7) for _ in range(2))
    accesses = [data[2]['text'] for _ in range(30)]
    assert [fresh[Visit(2, visit)]['text'] for visit in reversed(range(30))] == accesses[::-1]
    assert set(accesses) <= {e.text for e in data.scene_expressions(2)}
    assert len(set(accesses)) > 0.5 * len(data.scene_expressions(2))
    assert fresh[2]['text'] == accesses[0]  # a given visit does not count as an access
    other = ShapesDataset(5, seed=8)
    assert [other[Visit(2, v)]['text'] for v in range(30)] != accesses


def test_kind_weights_make_kinds_likelier():
    plain = ShapesDataset(60, seed=3)
    same = ShapesDataset(60, seed=3, kind_weights={})
    heavy = ShapesDataset(60, seed=3, kind_weights={'shape': 4, 'size': 2})
    weights = {'shape': 4, 'size-shape': 2, 'size-color-shape': 2}
    shares = []
    for index in range(60):
        kinds = [expression.kind for expression in plain.scene_expressions(index)]
        total = sum(weights.get(kind, 1) for kind in kinds)
        shares.append(sum(4 for kind in kinds if kind == 'shape') / total)
    drawn = [heavy[Visit(i, v)]['kind'] == 'shape' for i in range(60) for v in range(50)]
    expected = np.mean(shares)  # 3,000 draws: three standard deviations are 0.02
    assert abs(np.mean(drawn) - expected) < 0.02 and expected > 0.12
    assert [same[Visit(i, 5)]['text'] for i in range(60)] == [plain[Visit(i, 5)]['text'] for i in range(60)]
    with pytest.raises(ValueError, match="need expressions='random', but got expressions='all'"):
        ShapesDataset(5, split='val', kind_weights={'shape': 4})
    with pytest.raises(ValueError, match='must be positive, but got shape=0'):
        ShapesDataset(5, kind_weights={'shape': 0})
    with pytest.raises(ValueError, match="but got 'shapes'"):
        ShapesDataset(5, kind_weights={'shapes': 2})


def test_masks_of_one_scene_are_its_instances():
    data = ShapesDataset(20, split='test', test_mode=True)
    for item in data:
        target = next(e.target for e in data.scene_expressions(item['img_id']) if e.text == item['text'])
        np.testing.assert_array_equal(item['gt_seg_map'], item['gt_instance_map'] == target + 1)


def test_shape_types_are_held_out():
    assert not set(SEEN_SHAPES) & set(UNSEEN_SHAPES)
    assert not set(SEEN_TEXTURED) & set(UNSEEN_TEXTURED)
    for task, seen, unseen in (('referring', SEEN_SHAPES, UNSEEN_SHAPES), ('instance', SEEN_TEXTURED, UNSEEN_TEXTURED)):
        for shapes, names in (('seen', seen), ('unseen', unseen)):
            data = ShapesDataset(60, task=task, shapes=shapes, split='test')
            assert {o.shape for i in range(60) for o in data.scene(i).objects} == set(names)
            assert data[0]['subset'] == shapes
    assert ShapesDataset(1, split='val', shapes='unseen')[0]['subset'] == 'val'
    assert ShapesDataset(1, split='test', subset='hard')[0]['subset'] == 'hard'


def test_items_follow_the_contract():
    item = ShapesDataset(2, (48, 64))[1]
    assert (item['img'].dtype, item['img'].shape) == (np.uint8, (48, 64, 3))
    assert item['img_shape'] == item['ori_shape'] == (48, 64)
    assert (item['gt_seg_map'].dtype, item['gt_instance_map'].dtype) == (np.uint8, np.int32)
    assert item['seg_fields'] == ['gt_seg_map', 'gt_instance_map']
    assert (item['task'], item['subset'], item['img_path'], item['sample_idx']) == ('mask', 'train', '', 1)
    picture = ShapesDataset(2, task='text_to_image')[0]
    assert (picture['task'], picture['seg_fields']) == ('image', [])
    assert picture['text'].startswith('a scene with a ')
    training, test = (ShapesDataset(2, task='instance', test_mode=mode)[0] for mode in (False, True))
    assert (training['seg_fields'], test['seg_fields']) == (['gt_instance_map'], [])
    assert 'points' not in training and 'text' not in test
    assert DATASETS.get('ShapesDataset') is ShapesDataset


def test_training_captions_list_one_to_three_objects_anew_at_each_visit():
    data = ShapesDataset(40, task='text_to_image')
    whole = ShapesDataset(40, task='text_to_image', expressions=None, test_mode=True, split='val')
    drawn = {(index, visit): data[Visit(index, visit)]['text'] for index in range(40) for visit in range(3)}
    for (index, visit), text in drawn.items():
        assert caption(data.scene(index)).startswith(text)  # the ones that show most come first
        assert data[Visit(index, visit)]['text'] == text
    counts = Counter(text.count(' a ') for text in drawn.values())
    assert {1, 2} <= set(counts) <= {1, 2, 3} and counts[1] > 20
    assert len({drawn[index, 0] for index in range(40)} ^ {drawn[index, 1] for index in range(40)}) > 5
    assert all(whole[index]['text'] == caption(whole.scene(index)) for index in range(40))
    every = ShapesDataset(40, task='text_to_image', caption='all')
    assert {(item['img_id'], item['text']) for item in every} >= {(index, text) for (index, _), text in drawn.items()}
    assert len(every) == sum(min(3, len(data.scene(index).objects)) for index in range(40))


def test_changing_an_item_does_not_change_the_scene():
    data = ShapesDataset(1, task='instance')
    before = fingerprint(data[0])
    item = data[0]
    item['img'][:] = 0
    item['gt_instance_map'][:] = 0
    assert fingerprint(data[0]) == before


def test_points_lie_in_their_instances():
    data = ShapesDataset(40, (48, 80), task='instance', split='test', test_mode=True)
    for item in data:
        x, y = item['points'][:, 0].astype(int).T
        np.testing.assert_array_equal(item['points'][:, 0], np.stack([x, y], axis=1))
        np.testing.assert_array_equal(item['gt_instance_map'][y, x], item['point_ids'])
        assert item['point_ids'].tolist() == list(range(1, item['gt_instance_map'].max() + 1))
        assert item['point_labels'].tolist() == [[1]] * len(x)
    part = ShapesDataset(40, (48, 80), task='instance', split='test', test_mode=True, max_items=3)
    np.testing.assert_array_equal(part[2]['points'], data[part[2]['img_id']]['points'])


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(task='boxes'), "task must be one of .*'instance'.*but got 'boxes'"),
        (dict(split='dev'), "split must be one of .*but got 'dev'"),
        (dict(shapes='new'), "shapes must be one of .*but got 'new'"),
        (dict(kinds=['colour']), "kinds must be one of .*'color'.*but got 'colour'"),
        (dict(kinds=[]), 'kinds must be one of'),
        (dict(kinds=['color'], task='instance'), "task='referring' only, but got task='instance'"),
        (dict(expressions='some'), "expressions must be one of .*but got 'some'"),
        (dict(expressions='all', task='text_to_image'), "task='referring' only"),
        (dict(caption='all'), "task='text_to_image' only, but got task='referring'"),
        (dict(caption='first', task='text_to_image'), "caption must be one of .*but got 'first'"),
        (dict(grounds='busy', task='instance'), "grounds must be one of .*but got 'busy'"),
        (dict(grounds='textured'), "task='instance' only, but got task='referring'"),
        (dict(image_size=16), 'image_size must be a whole number of at least 32, but got 16'),
        (dict(image_size=(64, 64, 3)), r'image_size must be \(height, width\).*\(64, 64, 3\)'),
        (dict(image_size=(64, 64.0)), 'whole number of at least 32, but got 64.0'),
        (dict(image_size='64'), "image_size must be .*but got '64'"),
        (dict(num_scenes=0), 'num_scenes must be a whole number of at least 1, but got 0'),
        (dict(seed=-1), 'seed must be a whole number of at least 0, but got -1'),
        (dict(exclude_images='all'), "exclude_images is for pictures of COCO, but got 'all'"),
        (dict(max_items=0), 'max_items must be a whole number of at least 1, but got 0'),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ShapesDataset(**settings)
