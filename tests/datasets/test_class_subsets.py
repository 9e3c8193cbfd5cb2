"""Lists of classes: what is in them, and how a config names them."""

import pytest

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
