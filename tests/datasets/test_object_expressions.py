"""Sentences about objects: true of exactly their targets, as an independent reader of words and pixels finds."""

import os
from collections import Counter

import numpy as np
import pytest
from sentence_solver import Solver

from genseg_mm.datasets.object_bank import ObjectBank, default_bank, open_bank
from genseg_mm.datasets.object_expressions import KINDS, WORDINGS, Expression, SceneLanguage, caption
from genseg_mm.datasets.object_scenes import Cast, ObjectScene, PlacedObject, SceneStyle, arrange, draw_object_scene
from genseg_mm.datasets.object_vocabulary import vocabulary
from genseg_mm.datasets.object_words import is_plural, plural, with_article

NUM_SCENES = 25
NUM_ALL_SCENES = int(os.environ.get('GENSEG_NUM_SCENES', 2000))
SIZE = (96, 96)


def check_scenes(bank: ObjectBank, num: int, every: bool) -> dict[str, Counter]:
    """Compares the targets of expressions with what the reader finds; counts them by kind."""
    cast, style = Cast(bank, range(len(bank))), SceneStyle(object_size=(0.14, 0.6))
    Solver.learn([word for index in range(len(bank)) for word, _ in vocabulary(bank).of(index)])
    counts = {wordings: Counter() for wordings in WORDINGS}
    texts = {wordings: set() for wordings in WORDINGS}
    for number in range(num):
        key = [5, number, 1]
        seeds = [np.random.default_rng([*key, stream]) for stream in (1, 2, 1, 2)]
        scene = draw_object_scene(*seeds[:2], cast, SIZE, style)
        layers, ids = arrange(*seeds[2:], cast, SIZE, style)
        np.testing.assert_array_equal(ids, scene.ids)
        whole = np.zeros((len(layers), *SIZE), bool)
        for place, layer in zip(whole, layers, strict=True):
            place[layer.window] = layer.mask
        words = [[word for word, _ in vocabulary(bank).of(own.index)] for own in scene.objects]
        groups = [(own.group, own.subgroup) for own in scene.objects]
        solvers = [Solver(ids, whole, words, groups, loose) for loose in (False, True)]
        for wordings in WORDINGS:
            language = SceneLanguage(scene, cast, wordings, key)
            found = language.expressions() if every else language.of_each_kind(np.random.default_rng(key))
            for expression in found:
                for solver in solvers:
                    assert solver.solve(expression.text) == set(expression.targets), (number, words, expression)
                for target in expression.targets:
                    own = scene.objects[target]
                    assert own.visible >= 0.5 * own.area and own.visible == (ids == target + 1).sum()
            counts[wordings].update(own.kind for own in found)
            texts[wordings].update(own.text for own in found)
    assert not texts['train'] & texts['held_out']
    return counts


def test_every_expression_of_the_tiny_objects_is_true_of_its_targets_alone(tiny_objects):
    counts = check_scenes(open_bank(tiny_objects), NUM_SCENES, every=True)
    for wordings in WORDINGS:
        assert set(counts[wordings]) == set(KINDS), wordings
        assert counts[wordings].total() > 20 * NUM_SCENES


@pytest.mark.slow
@pytest.mark.skipif(not default_bank().is_file(), reason='tools/dataset_tools/prepare_objects.py makes the bank')
def test_expressions_of_the_whole_bank_are_true_of_their_targets_alone():
    """``GENSEG_NUM_SCENES=10000`` makes it the long one."""
    counts = check_scenes(open_bank(), NUM_ALL_SCENES, every=False)
    print({wordings: dict(own) for wordings, own in counts.items()})
    for wordings in WORDINGS:
        assert set(counts[wordings]) == set(KINDS) and counts[wordings].total() > 5 * NUM_ALL_SCENES


# ---- scenes made by hand


def placed(bank: ObjectBank, *facts: tuple) -> ObjectScene:
    """A scene of (name, x, y, area, *(hidden by, pixels)); the picture does not matter."""
    objects = []
    for name, x, y, area, *hidden in facts:
        index = bank.names.index(name)
        half = int(area**0.5 / 2)
        box = (int(x) - half, int(y) - half, int(x) + half, int(y) + half)
        visible = area - sum(pixels for _, pixels in hidden)
        kinds = bank.groups[index], bank.subgroups[index]
        objects.append(PlacedObject(index, name, *kinds, (x, y), box, 2.0 * half, area, visible, tuple(hidden)))
    ids = np.zeros((100, 100), np.uint8)
    return ObjectScene(np.zeros((100, 100, 3), np.uint8), ids, tuple(objects), 'on grass')


@pytest.fixture
def said(tiny_objects):
    """Texts and targets of a scene made by hand, by kind and wordings."""
    bank = open_bank(tiny_objects)
    cast = Cast(bank, range(len(bank)))

    def said(*facts, wordings='train', kinds=tuple(KINDS[:-1])):
        found = SceneLanguage(placed(bank, *facts), cast, wordings).expressions(kinds)
        assert len({own.text for own in found}) == len(found)
        return {own.text: own.targets for own in found}

    return said


def test_three_dogs_in_a_row(said):
    found = said(('dog', 20, 50, 100), ('dog', 50, 52, 100), ('dog', 80, 50, 300))
    assert found == {
        **{f'the leftmost {n}': (0,) for n in ('object', 'dog', 'doggy', 'animal')},
        **{f'the rightmost {n}': (2,) for n in ('object', 'dog', 'doggy', 'animal')},
        **{f'the largest {n}': (2,) for n in ('object', 'dog', 'doggy', 'animal')},
        **{f'the second {n} from the left': (1,) for n in ('object', 'dog', 'doggy', 'animal')},
        **{f'the second {n} from the right': (1,) for n in ('object', 'dog', 'doggy', 'animal')},
        **{f'{q} {n}': (0, 1, 2) for q in ('all the', 'the three') for n in ('objects', 'dogs', 'doggies', 'animals')},
    }  # fmt: skip
    new = said(('dog', 20, 50, 100), ('dog', 50, 52, 100), ('dog', 80, 50, 300), wordings='held_out')
    assert (
        new['the hound furthest to the left']
        == new['the leftmost hound']
        == new['the dog furthest to the left']
        == (0,)
    )
    assert 'the leftmost dog' not in new and new['every animal'] == (0, 1, 2)


def test_what_is_not_clear_is_not_said(said):
    # Centres 5 of 100 pixels apart, sizes that differ by a third, one that shows hardly.
    found = said(('dog', 20, 50, 100), ('dog', 25, 20, 130), ('owl', 80, 50, 400, (3, 300)), ('zebra', 80, 60, 400))
    assert not any(text.startswith(('the leftmost dog', 'the largest dog', 'the smallest dog')) for text in found)
    assert 'the owl' not in found and not any('of the owl' in text for text in found) and found['the zebra'] == (3,)
    assert 'all the animals' not in found and found['all the dogs'] == (0, 1)


def test_a_name_that_others_may_have_is_not_used(said):
    assert said(('cat', 20, 50, 100), ('zebra', 70, 50, 100))['the cat'] == (0,)
    two = said(('cat', 20, 50, 100), ('black cat', 70, 50, 100))
    assert not {'the cat', 'the house cat', 'the black cat'} & set(two) and two['all the animals'] == (0, 1)
    cars = said(('car', 20, 50, 100), ('taxi', 70, 50, 100), wordings='held_out')
    assert not any(word in text for text in cars for word in ('car', 'automobile', 'cab'))


def test_relations(said):
    row = said(('dog', 10, 50, 100), ('owl', 50, 50, 100), ('zebra', 90, 50, 100))
    assert row['the dog to the left of the owl'] == row['the object to the left of the owl'] == (0,)
    assert row['the owl between the dog and the zebra'] == (1,)
    assert row['the objects to the left of the zebra'] == (0, 1)
    assert 'the dog above the owl' not in row and 'the object closest to the owl' not in row
    near = said(('dog', 20, 50, 100), ('owl', 45, 50, 100), ('dog', 90, 50, 100))
    assert near['the dog closest to the owl'] == (0,) and near['the dog to the right of the owl'] == (2,)
    behind = said(('dog', 20, 50, 200, (1, 60)), ('owl', 30, 50, 200), ('dog', 80, 50, 200))
    assert behind['the dog behind the owl'] == (0,) and 'the dog in front of the owl' not in behind
    touching = said(('dog', 20, 50, 200, (1, 5)), ('owl', 30, 50, 200), ('dog', 80, 50, 200))
    assert not any('behind' in text for text in touching)


def test_what_is_not_there(said):
    found = said(('dog', 20, 50, 200), ('owl', 70, 50, 200), kinds=['no-target'])
    assert set(found.values()) == {()}
    assert {'the dog behind the owl', 'the owl to the left of the dog'} <= set(found)
    assert not {'the dog', 'the owl', 'the dog to the left of the owl'} & set(found)


def test_kinds_are_drawn_by_weight(tiny_objects):
    bank = open_bank(tiny_objects)
    language = SceneLanguage(
        placed(bank, ('dog', 20, 50, 100), ('dog', 50, 52, 100), ('dog', 80, 50, 300)), Cast(bank, range(len(bank)))
    )
    kinds = ('extreme', 'size', 'all', 'depth')  # there is none of the last one
    drawn = Counter(language.draw(np.random.default_rng(number), kinds, [1, 2, 1, 9]).kind for number in range(2000))
    assert set(drawn) == {'extreme', 'size', 'all'}
    assert abs(drawn['size'] / 2000 - 0.5) < 0.04 and abs(drawn['all'] / 2000 - 0.25) < 0.04
    assert language.draw(np.random.default_rng(0), ['depth'], [1]) is None
    each = language.of_each_kind(np.random.default_rng(0), KINDS)
    assert [own.kind for own in each] == ['extreme', 'size', 'ordinal', 'all', 'no-target']
    assert isinstance(each[0], Expression)


def test_captions(tiny_objects):
    bank = open_bank(tiny_objects)
    scene = placed(bank, ('owl', 20, 50, 100), ('apple', 50, 50, 300), ('apple', 70, 50, 200), ('grapes', 90, 50, 50))
    assert caption(scene, 1, False) == 'two apples'
    assert caption(scene, 2, True) == 'two apples and an owl on grass'
    assert caption(scene, 9, True) == 'two apples, an owl and grapes on grass'


@pytest.mark.parametrize(
    ('word', 'many', 'one'),
    [
        ('zebra', 'zebras', 'a zebra'),
        ('owl', 'owls', 'an owl'),
        ('unicorn', 'unicorns', 'a unicorn'),
        ('bus', 'buses', 'a bus'),
        ('cherry blossom', 'cherry blossoms', 'a cherry blossom'),
        ('kitchen knife', 'kitchen knives', 'a kitchen knife'),
        ('cat with tears of joy', 'cats with tears of joy', 'a cat with tears of joy'),
        ('ear of corn', 'ears of corn', 'an ear of corn'),
        ('woman cook', 'woman cooks', 'a woman cook'),
        ('person biking', 'people biking', 'a person biking'),
        ('sheep', 'sheep', 'a sheep'),
        ('french fries', None, 'french fries'),
        ('office building', 'office buildings', 'an office building'),
        ('man dancing', 'men dancing', 'a man dancing'),
        ('fork and knife', None, 'a fork and knife'),
        ('bread', None, 'bread'),
        ('glasses', None, 'glasses'),
        ('strawberry', 'strawberries', 'a strawberry'),
    ],
)
def test_english(word, many, one):
    assert (plural(word), with_article(word)) == (many, one)
    assert is_plural(word) == (word in ('french fries', 'glasses'))
