"""Instances in COCO's form -> id maps: order, crowds, damaged masks, sizes; by hand-worked values."""

import numpy as np
import pytest
from mmcv.transforms import Resize as MMCVResize
from mmengine.registry import TRANSFORMS

from genseg_mm.datasets import annotation_files
from genseg_mm.datasets.segmentations import decode_segmentation, encode_segmentation
from genseg_mm.datasets.transforms.instances import LoadInstanceMap

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


def test_rle_as_list_str_and_bytes_is_the_same():
    expected = np.zeros((4, 6), bool)
    expected[:, 5] = True
    compressed = encode_segmentation(CROWD, 4, 6, 'x')['counts']
    assert isinstance(compressed, bytes)
    for counts in ([20, 4], compressed, compressed.decode()):
        mask = decode_segmentation(dict(size=[4, 6], counts=counts), 4, 6, 'x')
        assert mask.tolist() == expected.tolist()


def test_run_lengths_with_differences_and_large_numbers_are_understood():
    generator = np.random.default_rng(0)
    for height, width in ((3, 5), (97, 120), (300, 401)):
        edges = np.sort(generator.choice(height * width, 11, replace=False))
        runs = np.diff(edges, prepend=0, append=height * width).tolist()
        rle = encode_segmentation(dict(size=[height, width], counts=runs), height, width, 'x')
        again = encode_segmentation(rle, height, width, 'x')
        assert again['counts'] == rle['counts']
        assert decode_segmentation(again, height, width, 'x').sum() == sum(runs[1::2])


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
def test_a_damaged_segmentation_is_an_error_or_a_counted_skip(monkeypatch, segmentation, message):
    lines = []
    monkeypatch.setattr(annotation_files, 'print_log', lambda text, *_: lines.append(text))
    with pytest.raises(ValueError, match=f"(?s)a.jpg, instance 1: .*{message}.*invalid='skip'"):
        load(sample(segmentation, [CUP]))
    transform = LoadInstanceMap(invalid='skip')
    for _ in range(12):
        results = transform(sample(segmentation, [CUP]))
        assert results['gt_instance_map'][1].tolist() == [0, 2, 2, 0, 0, 0]
        assert results['instance_counts'] == dict(annotated=2, crowd=0, invalid=1, hidden=0)
    assert transform.num_invalid == 12
    assert [line.rpartition(' (')[2] for line in lines] == [
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
