"""Lists of classes, and KeepClasses by hand-worked values."""

import h5py
import numpy as np
import pytest
from PIL import Image

from genseg_mm.datasets import KeepClasses, annotation_files
from genseg_mm.datasets import class_subsets as lists


def test_lists_are_what_they_say():
    assert len(set(lists.COCO_CLASSES)) == 80 and len(set(lists.NYU40_CLASSES)) == 40
    assert lists.COCO_CLASSES[0] == 'person' and lists.COCO_CLASSES[-1] == 'toothbrush'
    assert set(lists.COCO_SEEN) | set(lists.COCO_NOVEL) == set(lists.COCO_CLASSES)
    assert len(lists.COCO_NOVEL) == 39 and len(lists.COCO_SEEN) == 41
    assert {'person', 'dog', 'boat', 'kite'} <= set(lists.COCO_NOVEL)
    assert not {'car', 'truck', 'chair', 'couch', 'bed', 'tv'} & set(lists.COCO_NOVEL)
    assert all(len(reason) > 8 for reason in lists.COCO_SEEN.values())
    assert len(set(lists.HYPERSIM_10_CLASSES)) == len(set(lists.COCO_10_CLASSES)) == 10
    assert set(lists.HYPERSIM_5_CLASSES) < set(lists.HYPERSIM_10_CLASSES)
    assert set(lists.COCO_5_CLASSES) < set(lists.COCO_10_CLASSES) < set(lists.COCO_SEEN)
    names = [lists.NYU40_CLASSES[own - 1] for own in lists.HYPERSIM_5_CLASSES]
    assert names == ['chair', 'table', 'sofa', 'bed', 'lamp']


def test_a_list_is_named_or_given():
    assert lists.class_list('coco_novel', 'coco') == lists.COCO_NOVEL
    assert lists.class_list(['cat'], 'coco') == ('cat',)
    with pytest.raises(ValueError, match="one of .*'coco_5'.* but got 'coco_7'"):
        lists.class_list('coco_7', 'coco')
    with pytest.raises(ValueError, match="but got 'hypersim_10'"):
        lists.class_list('hypersim_10', 'coco')
    with pytest.raises(ValueError, match='must not be empty'):
        lists.class_list([], 'coco')


IDS = np.array([[7, 7, 7, 300], [9, 9, 0, 300]], np.int32)
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
    results = KeepClasses(classes)(dict(gt_instance_map=IDS.copy(), semantic_map=SEMANTIC))
    assert results['gt_instance_map'].tolist() == kept
    assert results['gt_instance_map'].dtype == np.int32


def test_semantic_maps_are_read_from_hdf5_and_png(tmp_path):
    hdf5, png = tmp_path / 'frame.0000.semantic.hdf5', tmp_path / 'semantic.png'
    with h5py.File(hdf5, 'w') as file:
        file['dataset'] = np.where(SEMANTIC == 0, -1, SEMANTIC).astype(np.int16)
    Image.fromarray(SEMANTIC.astype(np.uint8)).save(png)
    for path in (hdf5, png):
        results = dict(gt_instance_map=IDS.copy(), semantic_map_path=str(path))
        assert KeepClasses([35])(results)['gt_instance_map'].tolist() == [[0] * 4, [9, 9, 0, 0]]


def test_empty_samples_are_announced(monkeypatch):
    lines = []
    monkeypatch.setattr(annotation_files, 'print_log', lambda text, *_: lines.append(text))
    transform = KeepClasses([3])
    for _ in range(11):
        transform(dict(gt_instance_map=IDS, semantic_map=SEMANTIC, img_path='a.jpg'))
    assert transform.num_empty == 11
    assert [line.split('(')[1] for line in lines] == [
        '1 such samples so far in this process)',
        '10 such samples so far in this process)',
    ]


def test_keep_classes_refuses_bad_input(tmp_path):
    with pytest.raises(ValueError, match='put LoadInstanceMap before it'):
        KeepClasses([5])({})
    with pytest.raises(ValueError, match=r'needs semantic_map_path.*keys \[.gt_instance_map.\]'):
        KeepClasses([5])(dict(gt_instance_map=IDS))
    with pytest.raises(ValueError, match=r'size of the instance map \(2, 4\), but got \(1, 4\)'):
        KeepClasses([5])(dict(gt_instance_map=IDS, semantic_map=SEMANTIC[:1]))
    with pytest.raises(FileNotFoundError, match='nowhere.png'):
        KeepClasses([5])(dict(gt_instance_map=IDS, semantic_map_path=str(tmp_path / 'nowhere.png')))
    with pytest.raises(ValueError, match=r"names of NYU40 .*but got \['stool'\]"):
        KeepClasses(['chair', 'stool'])
    with pytest.raises(ValueError, match='must not be empty'):
        KeepClasses([])
