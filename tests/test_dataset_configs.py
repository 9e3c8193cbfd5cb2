"""The walk through datasets that hold others, and the transforms that are replaced in their configs."""

from mmengine.config import ConfigDict
from mmengine.dataset import ConcatDataset, RepeatDataset

from genseg_mm.dataset_configs import parts_of, replace_transforms, single_datasets, walk
from genseg_mm.datasets import SeededDataset, ShapesDataset

A, B, C = (dict(type=name, pipeline=[dict(type='Load'), dict(type='Flip', prob=0.5)]) for name in 'ABC')
REPEATED = dict(type='RepeatDataset', times=2, dataset=B)
JOINED = dict(type='ConcatDataset', datasets=[A, REPEATED, C])


def test_configs_are_walked_in_their_order():
    assert parts_of(A) == [] and parts_of(REPEATED) == [B] and parts_of(JOINED) == [A, REPEATED, C]
    assert list(walk(JOINED)) == [JOINED, A, REPEATED, B, C]
    assert list(single_datasets(JOINED)) == list(single_datasets(ConfigDict(JOINED))) == [A, B, C]
    assert list(single_datasets({})) == [{}]


def test_built_datasets_are_walked_alike():
    one, two = (ShapesDataset(num_scenes=number, image_size=32) for number in (1, 2))
    joined = ConcatDataset([one, two])
    repeated = SeededDataset(RepeatDataset(two, times=2))
    assert list(walk(joined)) == [joined, one, two]
    assert list(single_datasets(repeated)) == [two] and list(single_datasets(SeededDataset(one))) == [one]
    assert parts_of(SeededDataset(joined)) == [one, two]  # it answers as the dataset that it wraps


def test_an_attribute_that_is_no_dataset_is_none():
    class Named:
        dataset = 'coco'

    named = Named()
    assert parts_of(named) == [] and list(single_datasets(named)) == [named]


def test_transforms_are_replaced_wherever_they_stand_and_the_config_stays():
    def replace(transform):
        if transform['type'] == 'Flip':
            return [dict(type='Turn'), dict(type='Mirror')]
        return [] if transform['type'] == 'Load' else None

    changed = replace_transforms(ConfigDict(JOINED), replace)
    assert isinstance(changed, ConfigDict)
    for own in single_datasets(changed):
        assert own['pipeline'] == [dict(type='Turn'), dict(type='Mirror')]
    assert A['pipeline'] == [dict(type='Load'), dict(type='Flip', prob=0.5)]
    inner = dict(type='A', pipeline=[dict(type='Choice', transforms=[[dict(type='Load')], (dict(type='Flip'),)])])
    expected = [[], (dict(type='Turn'), dict(type='Mirror'))]
    assert replace_transforms(inner, replace)['pipeline'] == [dict(type='Choice', transforms=expected)]
