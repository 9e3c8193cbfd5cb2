"""Segmentations -> masks, labels -> instances, by hand-worked maps."""

import numpy as np
import pytest
from PIL import Image

from genseg_mm.datasets import LoadInstanceMap
from genseg_mm.datasets.segmentations import decode_segmentation, encode_segmentation, label_rule, labels_to_instances

CROWD = dict(size=[4, 6], counts=[20, 4])  # the last column
KNOWN = (0, 1, 2, 3, 255)
# Label 1: a diagonal pair (one region, corners count), one apart below. Label 2: touches label 1. 255: ignored.
LABELS = np.array([[0, 2, 2, 0, 1], [1, 0, 0, 0, 0], [0, 1, 2, 0, 255], [0, 0, 2, 3, 255]], np.uint8)


def ids(labels, where='x.png', **rule):
    return labels_to_instances(LABELS, **label_rule(labels, KNOWN, **rule), where=where).tolist()


def test_components_are_numbered_per_label_in_raster_order():
    assert ids([1, 2]) == [
        [0, 20001, 20001, 0, 10001],
        [10002, 0, 0, 0, 0],
        [0, 10002, 20002, 0, 0],
        [0, 0, 20002, 0, 0],
    ]


def test_an_id_does_not_depend_on_the_other_labels_or_the_smallest_area():
    assert ids([1]) == np.where(LABELS == 1, ids([1, 2, 3]), 0).tolist()
    assert ids([2, 3], min_area=2) == [
        [0, 20001, 20001, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 20002, 0, 0],
        [0, 0, 20002, 0, 0],
    ]
    assert ids([1], min_area=2)[1] == [10002, 0, 0, 0, 0]  # region 1 is too small, region 2 keeps its number
    assert ids([1], min_area=3) == np.zeros((4, 5), int).tolist()


def test_classes_have_their_label_as_id():
    assert ids([1, 3], instances='classes') == [[0, 0, 0, 0, 1], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 3, 0]]
    assert ids([1, 3], instances='classes', min_area=2)[3] == [0, 0, 0, 0, 0]


def test_an_ignored_label_may_be_an_instance_only_if_asked_for():
    assert ids([255])[2:] == [[0, 0, 0, 0, 2550001], [0, 0, 0, 0, 2550001]]


def test_types_of_the_map_do_not_matter():
    rule = label_rule([2], KNOWN)
    for dtype in (np.int32, np.uint16, np.int64):
        found = labels_to_instances(LABELS.astype(dtype), **rule)
        assert found.dtype == np.int32 and found[0].tolist() == [0, 20001, 20001, 0, 0]
    bits = labels_to_instances(LABELS == 2, **label_rule([1], (0, 1)))
    assert bits.tolist() == np.where(LABELS == 2, np.array(ids([2])) - 10000, 0).tolist()
    empty = labels_to_instances(np.zeros((2, 3), np.uint8), **rule)
    assert empty.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_unknown_labels_name_the_file():
    with pytest.raises(ValueError, match=r'x.png: expected the labels \[0, 1, 2, 3\], but got \[255\] as well'):
        labels_to_instances(LABELS, **label_rule([1], (0, 1, 2, 3)), where='x.png')


def test_ten_thousand_regions_are_no_label_map():
    dots = np.zeros((200, 202), np.uint8)
    dots[::2, ::2] = 1  # 100 x 101
    with pytest.raises(ValueError, match='y.png: expected fewer than 10000 .* but got 10100 of label 1'):
        labels_to_instances(dots, **label_rule([1], (0, 1)), where='y.png')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(labels=[1], instances='each'), "instances must be one of .* but got 'each'"),
        (dict(labels=[1], min_area=0), 'min_area must be a whole number .* but got 0'),
        (dict(labels=[]), r'labels must be some of \[1, 2, 3, 255\], but got \[\]'),
        (dict(labels=[0, 1]), r'but got \[0, 1\]'),
        (dict(labels=[7]), r'but got \[7\]'),
    ],
)
def test_bad_rules(arguments, message):
    with pytest.raises(ValueError, match=message):
        label_rule(known=KNOWN, **arguments)


def test_the_loader_applies_the_rule_to_palette_indices(tmp_path):
    path = tmp_path / 'labels.png'
    image = Image.fromarray(LABELS, mode='P')
    image.putpalette([9, 9, 9] * 256)  # all of one colour
    image.save(path)
    sample = dict(instance_map_path=str(path), ids_are_indices=True, label_rule=label_rule([2], KNOWN))
    found = LoadInstanceMap()(dict(sample))['gt_instance_map']
    assert found.tolist() == ids([2]) and found.dtype == np.int32
    image.convert('RGB').save(path)
    with pytest.raises(ValueError, match='labels.png: expected a palette PNG.*mode RGB'):
        LoadInstanceMap()(dict(sample))


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
