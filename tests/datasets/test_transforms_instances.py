"""Maps of instances by hand-worked values: loading, KeepClasses, RandomInstanceCrop, RandomScenePermute."""

import h5py
import numpy as np
import pytest
from mmcv.transforms import Resize as MMCVResize
from mmengine.registry import TRANSFORMS
from PIL import Image

from genseg_mm.datasets.shapes_dataset import ShapesDataset
from genseg_mm.datasets.transforms.instances import (
    KeepClasses,
    LoadInstanceMap,
    RandomInstanceCrop,
    RandomScenePermute,
    instance_pixels,
)

CUP = [1, 1, 3, 1, 3, 3, 1, 3]  # pixels 1..2 of both axes
TABLE = [0, 0, 5, 0, 5, 4, 0, 4]  # 4 rows of 5 pixels
CROWD = dict(size=[4, 6], counts=[20, 4])  # the last column


def sample(*masks, ignored=()):
    instances = [dict(mask=mask, ignore_flag=int(place in ignored)) for place, mask in enumerate(masks)]
    return dict(instances=instances, ori_shape=(4, 6), img_path='a.jpg')


def load(results, **settings):
    return LoadInstanceMap(**settings)(results)


def test_the_small_one_stays_on_top_of_the_large_one():
    results = load(sample([CUP], [TABLE]))
    assert results['gt_instance_map'].tolist() == [
        [2, 2, 2, 2, 2, 0],
        [2, 1, 1, 2, 2, 0],
        [2, 1, 1, 2, 2, 0],
        [2, 2, 2, 2, 2, 0],
    ]
    assert results['instance_counts'] == dict(annotated=2, crowd=0, invalid=0, hidden=0)
    turned = load(sample([TABLE], [CUP]))['gt_instance_map']
    assert turned[1].tolist() == [1, 2, 2, 1, 1, 0]  # ids stay those of the annotation order


def test_of_equals_the_later_is_on_top():
    results = load(sample([CUP], [CUP]))
    assert results['gt_instance_map'].max() == 2
    assert results['instance_counts']['hidden'] == 1


def test_several_parts_are_one_instance():
    left, right = [0, 0, 1, 0, 1, 4, 0, 4], [5, 0, 6, 0, 6, 4, 5, 4]
    assert load(sample([left, right]))['gt_instance_map'].tolist() == [[1, 0, 0, 0, 0, 1]] * 4


def test_crowds_are_background():
    results = load(sample(CROWD, [CUP], ignored=(0,)))
    assert results['gt_instance_map'][1].tolist() == [0, 1, 1, 0, 0, 0]
    assert results['instance_counts'] == dict(annotated=2, crowd=1, invalid=0, hidden=0)


@pytest.mark.parametrize(
    ('segmentation', 'message'),
    [
        (dict(size=[4, 6], counts=[20, 3]), 'of 24 pixels .*but got 23 pixels'),
        (dict(size=[4, 6], counts=[20, 400]), 'but got 420 pixels'),
        (dict(size=[4, 6], counts=[26, -2]), r'damaged counts \[26, -2\]'),
        (dict(size=[4, 6], counts=[20.0, 4.0]), 'damaged counts'),
        (dict(size=[4, 6], counts='0'), 'but got 0 pixels'),
        (dict(size=[4, 6], counts=''), 'but got 0 pixels'),
        (dict(size=[4, 6], counts='d'), "damaged counts 'd'"),  # says that more follows
        (dict(size=[4, 6], counts='\ud83d\n'), r"damaged counts '\\ud83d\\n'"),
        (dict(size=[4, 6], counts=b'\xff'), 'damaged counts'),
        (dict(size=[6, 4], counts=[20, 4]), r'size \(4, 6\), but got \(6, 4\)'),
        (dict(size=[4, 6]), 'expected an RLE with size'),
        (dict(counts=[24]), 'expected an RLE with size'),
        ([], r'at least 3 points .*lengths \[\]'),
        ([[0, 0, 1, 1]], r'lengths \[4\]'),
        ([[0, 0, 1, 1, 2, 2, 3]], r'lengths \[7\]'),
        ([1, 2, 3, 4, 5, 6], 'list of polygons or an RLE dict'),
        ('polygon', 'list of polygons or an RLE dict'),
        ([[0, 0, 1, 1, 2, float('nan')]], 'finite numbers as coordinates, but got nan'),
        ([[0, 0, 1, 1, 2, None]], 'but got None'),
        ([[0, 0, 1, 1, 2, 1e9]], r'the image of 4x6 or near it, but got 1000000000.0'),
    ],
)
def test_a_damaged_segmentation_is_an_error_or_a_counted_skip(log_lines, segmentation, message):
    with pytest.raises(ValueError, match=f"(?s)a.jpg, instance 1: .*{message}.*invalid='skip'"):
        load(sample(segmentation, [CUP]))
    transform = LoadInstanceMap(invalid='skip')
    for _ in range(12):
        results = transform(sample(segmentation, [CUP]))
        assert results['gt_instance_map'][1].tolist() == [0, 2, 2, 0, 0, 0]
        assert results['instance_counts'] == dict(annotated=2, crowd=0, invalid=1, hidden=0)
    assert transform.num_invalid == 12
    assert [line.rpartition(' (')[2] for _, line in log_lines] == [
        f'{count} invalid so far in this process)' for count in (1, 10)
    ]


def test_a_missing_mask_names_the_annotation():
    results = sample([CUP])
    results['instances'].append(dict(ignore_flag=0, ann_id=77))
    with pytest.raises(ValueError, match=r'a.jpg, annotation 77: .*lengths \[\]'):
        load(results)


def test_skip_leaves_parts_without_area_out_and_keeps_the_rest():
    results = load(sample([[0, 0, 5, 5], CUP]), invalid='skip')
    assert results['gt_instance_map'][1].tolist() == [0, 1, 1, 0, 0, 0]
    assert results['instance_counts']['invalid'] == 1


def test_an_instance_below_a_pixel_is_counted_as_hidden():
    results = load(sample([[2.1, 2.1, 2.2, 2.1, 2.2, 2.2]], [CUP]))
    assert np.unique(results['gt_instance_map']).tolist() == [0, 2]
    assert results['instance_counts']['hidden'] == 1


def test_more_than_255_instances_keep_their_ids():
    squares = [[[x, 0, x + 1, 0, x + 1, 1, x, 1]] for x in range(300)]
    results = dict(instances=[dict(mask=own) for own in squares], height=1, width=300)
    assert load(results)['gt_instance_map'].tolist() == [list(range(1, 301))]


def test_no_instance_is_all_background():
    results = load(dict(instances=[], ori_shape=(2, 3)))
    assert results['gt_instance_map'].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert results['gt_instance_map'].dtype == np.int32


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match=r"invalid must be one of \('error', 'skip'\), but got 'ignore'"):
        LoadInstanceMap(invalid='ignore')


def test_resize_and_flip_keep_large_ids_exact():
    ids = np.array([[0, 256, 4166], [70_000, 16_777_215, 1]], np.int32)
    results = dict(gt_instance_map=ids, ori_shape=(2, 3), img=np.zeros((2, 3, 3), np.uint8), img_shape=(2, 3))
    results = LoadInstanceMap()(results)
    resize = TRANSFORMS.build(dict(type='mmseg.Resize', scale=(9, 4), keep_ratio=False))
    doubled = resize(dict(results))['gt_instance_map']
    assert doubled.dtype == np.int32
    assert doubled.tolist() == ids.repeat(2, axis=0).repeat(3, axis=1).tolist()
    shrunk = TRANSFORMS.build(dict(type='mmseg.Resize', scale=(2, 1), keep_ratio=False))(dict(results))
    assert set(shrunk['gt_instance_map'].ravel().tolist()) <= set(ids.ravel().tolist())
    flip = TRANSFORMS.build(dict(type='mmseg.RandomFlip', prob=1.0, direction='horizontal'))
    assert flip(dict(results))['gt_instance_map'].tolist() == ids[:, ::-1].tolist()
    # The trap that the docstring names: mmcv's own Resize does not know the map.
    passed_by = MMCVResize(scale=(9, 4), keep_ratio=False)(dict(results))
    assert passed_by['img'].shape == (4, 9, 3) and passed_by['gt_instance_map'].shape == (2, 3)


def test_our_flip_draws_and_flips_as_that_of_mmseg_does():
    settings = dict(prob=[0.3, 0.3, 0.3], direction=['horizontal', 'vertical', 'diagonal'])
    flips = [
        TRANSFORMS.build(dict(type=name, **settings)) for name in ('mmseg.RandomFlip', 'genseg_mm.RandomInstanceFlip')
    ]
    generator, directions = np.random.default_rng(0), set()
    for seed in range(20):
        image, ids = generator.integers(0, 256, (4, 6, 3), np.uint8), generator.integers(0, 70_000, (4, 6), np.int32)
        maps, made = dict(gt_instance_map=ids, gt_seg_map=ids % 3), []
        for flip in flips:
            np.random.seed(seed)
            made.append(flip(dict(img=image, seg_fields=list(maps), **maps)))
        theirs, ours = made
        directions.add(ours['flip_direction'])
        assert ours['flip_direction'] == theirs['flip_direction']
        for key in ('img', *maps):
            assert ours[key].dtype == theirs[key].dtype and (ours[key] == theirs[key]).all()
    assert directions == {None, 'horizontal', 'vertical', 'diagonal'}


# ---- files and mmdet instances


SQUARE = [0, 0, 4, 0, 4, 4, 0, 4]  # pixels 0..3 of both axes
SHIFTED = [2, 2, 6, 2, 6, 6, 2, 6]
IDS = np.array([[0, 1, 300], [2, 2, 300]])


@pytest.mark.parametrize('kind', ['palette', '16-bit', 'rgb'])
def test_instance_map_from_png_keeps_the_ids(tmp_path, kind):
    path = tmp_path / 'ids.png'
    if kind == 'palette':
        ids = IDS % 256
        image = Image.fromarray(ids.astype(np.uint8), mode='P')
        image.putpalette(list(range(255, -1, -1)) * 3)
        image.save(path)
    elif kind == '16-bit':
        ids = IDS
        Image.fromarray(ids.astype(np.uint16)).save(path)
    else:
        ids = IDS + 70_000
        coded = np.stack([ids >> 16, ids >> 8 & 255, ids & 255], -1)
        Image.fromarray(coded.astype(np.uint8)).save(path)
    results = LoadInstanceMap()(dict(instance_map_path=str(path), ori_shape=(2, 3)))
    assert results['gt_instance_map'].tolist() == ids.tolist()
    assert results['gt_instance_map'].dtype == np.int32


def test_of_mmdet_instances_ids_are_those_of_the_annotation_order():
    instances = [
        dict(mask=[SQUARE], ignore_flag=0),
        dict(mask=[SQUARE], ignore_flag=1),
        dict(mask=[SHIFTED], ignore_flag=0),
    ]
    instance_map = LoadInstanceMap()(dict(instances=instances, ori_shape=(8, 8)))['gt_instance_map']
    assert instance_map[1].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert instance_map[3].tolist() == [1, 1, 2, 2, 2, 2, 0, 0]


def test_bad_instance_maps_name_the_file(tmp_path):
    path = tmp_path / 'ids.png'
    with pytest.raises(FileNotFoundError, match='ids.png'):
        LoadInstanceMap()(dict(instance_map_path=str(path)))
    path.write_bytes(b'no picture')
    with pytest.raises(ValueError, match='ids.png: expected a PNG'):
        LoadInstanceMap()(dict(instance_map_path=str(path)))
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(path)
    with pytest.raises(ValueError, match=r'ids.png.*a.jpg \(4, 4\), but got \(2, 3\)'):
        LoadInstanceMap()(dict(instance_map_path=str(path), ori_shape=(4, 4), img_path='a.jpg'))
    Image.fromarray(np.zeros((2, 3, 4), np.uint8)).save(path)
    with pytest.raises(ValueError, match='but got mode RGBA'):
        LoadInstanceMap()(dict(instance_map_path=str(path), ori_shape=(2, 3)))
    with pytest.raises(ValueError, match=r"but got the keys \['img'\]"):
        LoadInstanceMap()(dict(img=None))


# ---- KeepClasses


ROOM = np.array([[7, 7, 7, 300], [9, 9, 0, 300]], np.int32)
# 7 is a chair (5) by two of three pixels, 9 a lamp (35) by the smaller of equals, 300 has no label
SEMANTIC = np.array([[5, 5, 1, 0], [35, 40, 2, 0]], np.int32)


@pytest.mark.parametrize(
    ('classes', 'kept'),
    [
        ([5], [[7, 7, 7, 0], [0, 0, 0, 0]]),
        (['chair', 'lamp'], [[7, 7, 7, 0], [9, 9, 0, 0]]),
        ([1, 40], [[0, 0, 0, 0], [0, 0, 0, 0]]),
        ('hypersim_5', [[7, 7, 7, 0], [9, 9, 0, 0]]),
    ],
)
def test_instances_are_kept_by_the_class_of_most_of_their_pixels(classes, kept):
    results = KeepClasses(classes)(dict(gt_instance_map=ROOM.copy(), semantic_map=SEMANTIC))
    assert results['gt_instance_map'].tolist() == kept
    assert results['gt_instance_map'].dtype == np.int32


def test_semantic_maps_are_read_from_hdf5_and_png(tmp_path):
    hdf5, png = tmp_path / 'frame.0000.semantic.hdf5', tmp_path / 'semantic.png'
    with h5py.File(hdf5, 'w') as file:
        file['dataset'] = np.where(SEMANTIC == 0, -1, SEMANTIC).astype(np.int16)
    Image.fromarray(SEMANTIC.astype(np.uint8)).save(png)
    for path in (hdf5, png):
        results = dict(gt_instance_map=ROOM.copy(), semantic_map_path=str(path))
        assert KeepClasses([35])(results)['gt_instance_map'].tolist() == [[0] * 4, [9, 9, 0, 0]]


def test_empty_samples_are_announced(log_lines):
    transform = KeepClasses([3])
    for _ in range(11):
        transform(dict(gt_instance_map=ROOM, semantic_map=SEMANTIC, img_path='a.jpg'))
    assert transform.num_empty == 11
    assert [line.split('(')[1] for _, line in log_lines] == [
        '1 such samples so far in this process)',
        '10 such samples so far in this process)',
    ]


def test_keep_classes_refuses_bad_input(tmp_path):
    with pytest.raises(ValueError, match='put LoadInstanceMap before it'):
        KeepClasses([5])({})
    with pytest.raises(ValueError, match=r'needs semantic_map_path.*keys \[.gt_instance_map.\]'):
        KeepClasses([5])(dict(gt_instance_map=ROOM))
    with pytest.raises(ValueError, match=r'size of the instance map \(2, 4\), but got \(1, 4\)'):
        KeepClasses([5])(dict(gt_instance_map=ROOM, semantic_map=SEMANTIC[:1]))
    with pytest.raises(FileNotFoundError, match='nowhere.png'):
        KeepClasses([5])(dict(gt_instance_map=ROOM, semantic_map_path=str(tmp_path / 'nowhere.png')))
    with pytest.raises(ValueError, match=r"names of NYU40 .*but got \['stool'\]"):
        KeepClasses(['chair', 'stool'])
    with pytest.raises(ValueError, match='must not be empty'):
        KeepClasses([])


# ---- RandomInstanceCrop


def picture_with_map(instance_map: np.ndarray) -> dict:
    instance_map = np.asarray(instance_map, np.int32)
    y, x = np.indices(instance_map.shape)
    image = np.stack([y, x, instance_map % 256], axis=-1).astype(np.uint8)
    return dict(
        img=image,
        gt_instance_map=instance_map,
        gt_seg_map=(instance_map > 0).astype(np.uint8),
        seg_fields=['gt_instance_map', 'gt_seg_map'],
        img_path='a.jpg',
    )


def corner_of(results: dict) -> tuple[int, int]:
    return tuple(results['img'][0, 0, :2].tolist())


def test_pixels_of_instances_in_each_crop():
    instance_map = np.array([[0, 0, 300, 0], [7, 0, 0, 0], [7, 7, 0, 0]])
    assert instance_pixels(instance_map, (2, 2)).tolist() == [[1, 1, 1], [3, 1, 0]]
    assert instance_pixels(instance_map, (3, 4)).tolist() == [[4]]
    assert instance_pixels(instance_map, (1, 4)).tolist() == [[1], [1], [2]]
    np.testing.assert_array_equal(instance_pixels(instance_map, (1, 1)), instance_map > 0)


def test_crop_moves_all_maps_together_and_keeps_the_ids():
    instance_map = np.zeros((9, 12), int)
    instance_map[2:5, 3:8] = 70000
    for seed in range(20):
        np.random.seed(seed)
        results = RandomInstanceCrop((4, 6))(picture_with_map(instance_map))
        top, left = corner_of(results)
        window = slice(top, top + 4), slice(left, left + 6)
        assert results['gt_instance_map'].tolist() == instance_map[window].tolist()
        assert results['gt_seg_map'].tolist() == (instance_map[window] > 0).astype(int).tolist()
        np.testing.assert_array_equal(results['img'][..., 1], np.tile(np.arange(left, left + 6), (4, 1)))
        assert results['img_shape'] == (4, 6) == results['img'].shape[:2]
        assert results['gt_instance_map'].max() == 70000
        assert all(results[key].flags.c_contiguous for key in ('img', 'gt_instance_map'))


def test_one_draw_has_the_distribution_of_redrawing_until_an_instance_shows():
    instance_map = np.zeros((6, 9), int)
    instance_map[0, 0] = instance_map[4, 6] = 1
    np.random.seed(0)
    crop = RandomInstanceCrop((3, 4))
    corners = [corner_of(crop(picture_with_map(instance_map))) for _ in range(2600)]
    redrawn, generator = set(), np.random.default_rng(0)
    for _ in range(600):
        top, left = generator.integers((4, 6))
        if instance_map[top : top + 3, left : left + 4].any():
            redrawn.add((top, left))
    counts = {corner: corners.count(corner) for corner in set(corners)}
    assert set(counts) == redrawn and len(counts) == 1 + 2 * 3
    expected = len(corners) / len(counts)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 22.5  # 6 degrees of freedom: p = 0.001


def test_a_map_without_instances_is_cropped_anywhere_and_counted():
    crop = RandomInstanceCrop((2, 2))
    np.random.seed(0)
    corners = {corner_of(crop(picture_with_map(np.zeros((3, 3))))) for _ in range(50)}
    assert corners == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert crop.num_empty == 50


def test_draws_follow_the_global_seed():
    instance_map = np.ones((20, 20), int)
    crop, corners = RandomInstanceCrop((4, 4)), []
    for _ in range(2):
        np.random.seed(5)
        corners.append([corner_of(crop(picture_with_map(instance_map))) for _ in range(5)])
    assert corners[0] == corners[1] and len(set(corners[0])) > 1


def test_what_cannot_be_cropped_is_refused():
    crop = RandomInstanceCrop((4, 6))
    with pytest.raises(ValueError, match=r'a.jpg: .* at least the crop_size \(4, 6\) .* got \(4, 5\)'):
        crop(picture_with_map(np.ones((4, 5))))
    with pytest.raises(ValueError, match='put LoadInstanceMap before it'):
        crop(dict(img=np.zeros((9, 9, 3), np.uint8)))
    with pytest.raises(ValueError, match='put PointPrompt after it'):
        crop(dict(picture_with_map(np.ones((9, 9))), points=np.zeros((1, 1, 2))))
    with pytest.raises(ValueError, match=r'size of the image \(9, 9\), but got \(8, 9\)'):
        crop(dict(picture_with_map(np.ones((9, 9))), gt_instance_map=np.ones((8, 9), np.int32)))
    for wrong in ((4,), (0, 4), (4.0, 4)):
        with pytest.raises(ValueError, match='crop_size must be'):
            RandomInstanceCrop(wrong)


def test_it_is_found_by_name():
    crop = TRANSFORMS.build(dict(type='genseg_mm.RandomInstanceCrop', crop_size=[4, 6]))
    assert repr(crop) == 'RandomInstanceCrop(crop_size=(4, 6))'


# ---- RandomScenePermute


ITEMS = ShapesDataset(1, task='instance', test_mode=True)


def test_transpose_moves_image_map_and_points_together():
    item, before = ITEMS[0], ITEMS[0]
    RandomScenePermute(transpose_prob=1, channel_prob=0)(item)
    np.testing.assert_array_equal(item['img'], before['img'].transpose(1, 0, 2))
    np.testing.assert_array_equal(item['gt_instance_map'], before['gt_instance_map'].T)
    x, y = item['points'][:, 0].astype(int).T
    np.testing.assert_array_equal(item['gt_instance_map'][y, x], item['point_ids'])
    assert item['img'].flags.c_contiguous
    assert TRANSFORMS.get('genseg_mm.RandomScenePermute') is RandomScenePermute


def test_channels_are_permuted_alike_everywhere():
    np.random.seed(0)
    before = ITEMS[0]
    orders = set()
    for _ in range(60):
        item = ITEMS[0]
        RandomScenePermute(transpose_prob=0)(item)
        order = [next(k for k in range(3) if (item['img'][..., c] == before['img'][..., k]).all()) for c in range(3)]
        np.testing.assert_array_equal(item['img'], before['img'][..., order])
        orders.add(tuple(order))
    assert len(orders) == 6


def test_permutation_follows_the_global_seed_and_its_probability():
    transform = RandomScenePermute(transpose_prob=0.25, channel_prob=0)
    image = np.arange(12).reshape(2, 2, 3)
    drawn = []
    for _ in range(2):
        np.random.seed(1)
        drawn.append([transform(dict(img=image))['img'][0, 1, 0] == image[1, 0, 0] for _ in range(400)])
    assert drawn[0] == drawn[1]
    assert np.mean(drawn[0]) == pytest.approx(0.25, abs=0.06)


def test_permutation_refuses_what_would_become_wrong():
    with pytest.raises(ValueError, match='without text'):
        RandomScenePermute()(ShapesDataset(1)[0])
    with pytest.raises(ValueError, match=r'square image, but got \(40, 64\)'):
        RandomScenePermute()(ShapesDataset(1, (40, 64), task='instance')[0])
    with pytest.raises(ValueError, match='transpose_prob must be in'):
        RandomScenePermute(transpose_prob=2)
