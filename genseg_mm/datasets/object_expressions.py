"""Referring expressions about scenes of objects, each true of exactly its targets, and captions.

A sentence is made of nouns ('cat', 'kitty', 'animal', 'object') and relations. Both are three-valued: an object is
certainly, perhaps or certainly not a cat; it lies certainly, perhaps or certainly not left of the owl. An expression
is used only where nothing that is 'perhaps' could change its targets, so that people agree with it as well.

Sets of objects are whole numbers, bit ``i`` for ``scene.objects[i]``.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from genseg_mm.datasets.object_scenes import Cast, ObjectScene
from genseg_mm.datasets.object_vocabulary import vocabulary
from genseg_mm.datasets.object_words import (
    ANY,
    ANY_PLURAL,
    CLASS_WORDS,
    is_plural,
    plural,
    with_article,
)

WORDINGS = ('train', 'held_out')
MIN_SHOWN = 0.5  # share of an object that shows, for it to be a target or to be named
MARGIN = 0.06  # centres differ by this share of the short side, or are not told apart
SIDE_MARGIN = 0.1  # the same for 'left of', 'above'
SIZE_RATIO = 1.45  # areas differ by this factor, or are not told apart
BEHIND = 0.1  # hidden share of an object that is 'behind' another
CLOSER = 1.35  # distances differ by this factor
PLAIN_PROB = 0.15  # 'the largest object' where 'the largest cat' can be said as well
NUM_ABSENT = 4  # kinds that are not there, of a scene
COUNT_WORDS = {2: 'two', 3: 'three', 4: 'four', 5: 'five', 6: 'six'}
ORDINALS = ('first', 'second', 'third', 'fourth', 'fifth')

# Kind of expression -> phrase -> wordings; those after the bar are kept for testing.
_WORDINGS = {
    'name': {'': ('the {n} | find the {n} | where is the {n}?',)},
    'class': {'': ('the {n} | find the {n} | where is the {n}?',)},
    'extreme': {
        'left': ('the leftmost {n} | the {n} furthest to the left',),
        'right': ('the rightmost {n} | the {n} furthest to the right',),
        'top': ('the topmost {n} | the {n} at the very top',),
        'bottom': ('the bottom {n} | the {n} at the very bottom',),
    },
    'size': {
        'large': ('the largest {n} | the biggest {n}',),
        'small': ('the smallest {n} | the tiniest {n}',),
    },
    'ordinal': {
        'left': ('the {k} {n} from the left | counting from the left, the {k} {n}',),
        'right': ('the {k} {n} from the right | counting from the right, the {k} {n}',),
    },
    'relation': {
        'left': ('the {n} to the left of the {m} | the {n} that has the {m} to its right',),
        'right': ('the {n} to the right of the {m} | the {n} that has the {m} to its left',),
        'above': ('the {n} above the {m} | the {n} that has the {m} below it',),
        'below': ('the {n} below the {m} | the {n} that has the {m} above it',),
    },
    'depth': {
        'behind': ('the {n} behind the {m} | the {n} that the {m} partly hides',),
        'front': ('the {n} in front of the {m} | the {n} that partly hides the {m}',),
    },
    'between': {'': ('the {n} between the {m} and the {o} | the {n} with the {m} and the {o} on either side',)},
    'closest': {'': ('the {n} closest to the {m} | the {n} nearest the {m}',)},
    'all': {'': ('all the {ns} | every {n}', 'the {c} {ns} |')},
    'all-relation': {
        'left': ('the {ns} to the left of the {m} | the {ns} that have the {m} to their right',),
        'right': ('the {ns} to the right of the {m} | the {ns} that have the {m} to their left',),
        'above': ('the {ns} above the {m} | the {ns} that have the {m} below them',),
        'below': ('the {ns} below the {m} | the {ns} that have the {m} above them',),
    },
}  # fmt: skip
KINDS = (*_WORDINGS, 'no-target')
_OPPOSITE = dict(left='right', right='left', above='below', below='above')


class Expression(NamedTuple):
    """A sentence that is true of exactly its targets.

    Attributes:
        text: The sentence.
        targets: Numbers of ``scene.objects``, ascending; empty where nothing is meant.
        kind: One of ``KINDS``.
    """

    text: str
    targets: tuple[int, ...]
    kind: str


class Noun(NamedTuple):
    """A word for objects, in one scene.

    Attributes:
        word: In the singular.
        many: In the plural, None where there is none.
        sure: Set of the objects that it is certainly true of.
        perhaps: Set of those that it may be true of, the sure ones among them.
        is_held_out: Whether it is kept for testing.
        is_class: Whether it is of a class ('animal') or of everything.
    """

    word: str
    many: str | None
    sure: int
    perhaps: int
    is_held_out: bool
    is_class: bool

    @property
    def is_clear(self) -> bool:
        """Whether nobody could count another object in."""
        return self.sure == self.perhaps


class _Clause(NamedTuple):
    """An expression without its wording."""

    kind: str
    phrase: str
    nouns: tuple[Noun, ...]
    targets: int
    ordinal: str = ''
    is_absent: bool = False


class SceneLanguage:
    """What can be said about a scene.

    Args:
        scene: The scene.
        cast: The kinds that it may have, for what is not there.
        wordings: 'train', or 'held_out': at least one word or phrase that training does not have.
        seed: Of the choice of what is not there.
    """

    def __init__(self, scene: ObjectScene, cast: Cast, wordings: str = 'train', seed: Sequence[int] = (0,)) -> None:
        self.scene, self.cast, self.wordings = scene, cast, wordings
        self._seed = seed
        self._short = min(scene.ids.shape)
        self._vocabulary = vocabulary(cast.bank)
        objects = scene.objects
        self.everything = (1 << len(objects)) - 1
        shown = [own.visible >= MIN_SHOWN * own.area for own in objects]
        self.shown = sum(1 << number for number, own in enumerate(shown) if own)
        self._pairs: dict[str, list[tuple[int, int]]] = {}
        self.nouns = self._nouns()

    def expressions(self, kinds: Sequence[str] = KINDS) -> list[Expression]:
        """All expressions of some kinds, in a fixed order; 'no-target' has a choice of kinds that are not there."""
        return [expression for kind in kinds for clause in self._clauses(kind) for expression in self._wordings(clause)]

    def of_each_kind(self, rng: Generator, kinds: Sequence[str] = KINDS) -> list[Expression]:
        """One expression of each of some kinds that the scene has."""
        found = (self._choose(rng, kind) for kind in kinds)
        return [own for own in found if own is not None]

    def draw(self, rng: Generator, kinds: Sequence[str], weights: Sequence[float]) -> Expression | None:
        """One expression: first its kind, by the weights, among those that the scene has; None where it has none."""
        weights = np.asarray(weights, np.float64)
        # The largest u^(1/w) first: the order of draws by weight without replacement.
        keys = np.log(np.maximum(rng.random(len(kinds)), 1e-300)) / weights
        for place in np.argsort(-keys, kind='stable').tolist():
            found = self._choose(rng, kinds[place])
            if found is not None:
                return found
        return None

    def _choose(self, rng: Generator, kind: str) -> Expression | None:
        clauses = list(self._clauses(kind))
        plain = [own for own in clauses if own.nouns[0].word == ANY]
        named = [own for own in clauses if own.nouns[0].word != ANY]
        pools = (plain, named) if rng.random() < PLAIN_PROB else (named, plain)
        if kind == 'all':
            pools = pools[:1]  # 'all the objects' asks for nothing but the ground's opposite: seldom
        for pool in pools:
            for place in rng.permutation(len(pool))[:8].tolist():
                found = list(self._wordings(pool[place]))
                if found:
                    return found[int(rng.integers(len(found)))]
        return None

    # ---- nouns

    def _nouns(self) -> list[Noun]:
        words = self._vocabulary
        nouns = [Noun(ANY, ANY_PLURAL, self.everything, self.everything, False, True)]
        seen = {ANY}
        for own in self.scene.objects:
            for word, is_held_out in words.of(own.index):
                if word not in seen and (self.wordings == 'held_out' or not is_held_out):
                    seen.add(word)
                    nouns.append(self._noun(word, is_held_out))
        for word in CLASS_WORDS:
            noun = self._noun(word, False, is_class=True)
            if noun.sure and word not in seen:
                nouns.append(noun)
        return nouns

    def _noun(self, word: str, is_held_out: bool, is_class: bool = False) -> Noun:
        sure = perhaps = 0
        for number, own in enumerate(self.scene.objects):
            truth = self._vocabulary.truth(word, own.index)
            sure |= (truth == 2) << number
            perhaps |= (truth >= 1) << number
        return Noun(word, plural(word), sure, perhaps, is_held_out, is_class)

    def _anchors(self) -> Iterator[tuple[Noun, int]]:
        """Nouns that are true of one object alone, which shows, and its number."""
        for noun in self.nouns:
            if noun.is_clear and noun.sure.bit_count() == 1 and noun.sure & self.shown and not noun.is_class:
                yield noun, noun.sure.bit_length() - 1

    # ---- relations: for object j, the sets of objects that are certainly and perhaps left of it, ...

    def _relation(self, name: str) -> list[tuple[int, int]]:
        if name not in self._pairs:
            rule = {'behind': self._is_behind, 'front': lambda i, j: self._is_behind(j, i)}.get(name)
            if rule is None:
                rule = self._side_rule(name)
            self._pairs[name] = [self._sets(rule, j) for j in range(len(self.scene.objects))]
        return self._pairs[name]

    def _sets(self, rule: Callable[[int, int], int], anchor: int) -> tuple[int, int]:
        sure = perhaps = 0
        for number in range(len(self.scene.objects)):
            if number != anchor:
                truth = rule(number, anchor)
                sure |= (truth == 2) << number
                perhaps |= (truth >= 1) << number
        return sure, perhaps

    def _side_rule(self, name: str) -> Callable[[int, int], int]:
        axis, sign = dict(left=(0, 1), right=(0, -1), above=(1, 1), below=(1, -1))[name]
        centers, margin = [own.center for own in self.scene.objects], SIDE_MARGIN * self._short

        def rule(number: int, anchor: int) -> int:
            ahead = sign * (centers[anchor][axis] - centers[number][axis])
            aside = abs(centers[anchor][1 - axis] - centers[number][1 - axis])
            if ahead <= 0:
                return 0
            return 2 if ahead >= margin and ahead >= 1.2 * aside else 1

        return rule

    def _is_behind(self, number: int, anchor: int) -> int:
        own = self.scene.objects[number]
        hidden = dict(own.hidden_by).get(anchor)
        if hidden is None:
            return 0
        return 2 if hidden >= BEHIND * own.area else 1

    # ---- what can be said

    def _clauses(self, kind: str) -> Iterator[_Clause]:
        rules = {
            'name': self._names, 'class': self._classes, 'extreme': self._extremes, 'size': self._sizes,
            'ordinal': self._ordinals, 'relation': self._relations, 'depth': self._depths, 'between': self._betweens,
            'closest': self._closest, 'all': self._alls, 'all-relation': self._all_relations,
            'no-target': self._no_targets,
        }  # fmt: skip
        return rules[kind]()

    def _is_target(self, found: int) -> bool:
        return found != 0 and not found & ~self.shown

    def _names(self) -> Iterator[_Clause]:
        for noun, number in self._anchors():
            yield _Clause('name', '', (noun,), 1 << number)

    def _classes(self) -> Iterator[_Clause]:
        for noun in self.nouns:
            is_one = noun.is_clear and noun.sure.bit_count() == 1
            if noun.is_class and noun.word != ANY and is_one and self._is_target(noun.sure):
                yield _Clause('class', '', (noun,), noun.sure)

    def _groups(self, least: int) -> Iterator[tuple[Noun, list[int]]]:
        for noun in self.nouns:
            if noun.is_clear and noun.sure.bit_count() >= least:
                yield noun, _numbers(noun.sure)

    def _extremes(self) -> Iterator[_Clause]:
        for noun, group in self._groups(2):
            for phrase, (axis, sign) in dict(left=(0, 1), right=(0, -1), top=(1, 1), bottom=(1, -1)).items():
                order = self._order(group, axis, sign)
                leads = self._leads(order, 0, axis) and self._edge_leads(order, axis, sign)
                if leads and self._is_target(1 << order[0]):
                    yield _Clause('extreme', phrase, (noun,), 1 << order[0])

    def _order(self, group: list[int], axis: int, sign: int) -> list[int]:
        return sorted(group, key=lambda number: sign * self.scene.objects[number].center[axis])

    def _leads(self, order: list[int], place: int, axis: int) -> bool:
        """Whether one place of an order is clearly before the next."""
        first, second = (self.scene.objects[number].center[axis] for number in order[place : place + 2])
        return abs(first - second) >= MARGIN * self._short

    def _edge_leads(self, order: list[int], axis: int, sign: int) -> bool:
        """Whether the first one's edge is the outermost as well, so that no other could be meant."""
        edges = [sign * self.scene.objects[number].box[axis if sign > 0 else axis + 2] for number in order]
        return edges[0] <= min(edges)

    def _sizes(self) -> Iterator[_Clause]:
        objects = self.scene.objects
        for noun, group in self._groups(2):
            for phrase, sign in (('large', -1), ('small', 1)):
                order = sorted(group, key=lambda number: sign * objects[number].area)
                first, rest = objects[order[0]], [objects[number] for number in order[1:]]
                ratios = [(own.area / first.area) ** sign for own in rest]
                seen = [(own.visible / first.visible) ** sign for own in rest]
                if min(ratios) >= SIZE_RATIO and min(seen) >= SIZE_RATIO and self._is_target(1 << order[0]):
                    yield _Clause('size', phrase, (noun,), 1 << order[0])

    def _ordinals(self) -> Iterator[_Clause]:
        for noun, group in self._groups(3):
            for phrase, sign in (('left', 1), ('right', -1)):
                order = self._order(group, 0, sign)
                for place in range(1, len(order) - 1):
                    if not (self._leads(order, place - 1, 0) and self._leads(order, place, 0)):
                        break
                    if self._is_target(1 << order[place]):
                        yield _Clause('ordinal', phrase, (noun,), 1 << order[place], ORDINALS[place])

    def _relations(self) -> Iterator[_Clause]:
        yield from self._related('relation', ('left', 'right', 'above', 'below'), 1)

    def _depths(self) -> Iterator[_Clause]:
        yield from self._related('depth', ('behind', 'front'), 1)

    def _all_relations(self) -> Iterator[_Clause]:
        yield from self._related('all-relation', ('left', 'right', 'above', 'below'), 2)

    def _related(self, kind: str, names: Sequence[str], least: int) -> Iterator[_Clause]:
        for anchor, number in self._anchors():
            for name in names:
                sure, perhaps = self._relation(name)[number]
                for noun in self.nouns:
                    found = noun.sure & sure
                    count = found.bit_count()
                    if found != noun.perhaps & perhaps or noun.word == anchor.word or not self._is_target(found):
                        continue
                    if count == 1 if least == 1 else count >= least and noun.many:
                        yield _Clause(kind, name, (noun, anchor), found)

    def _betweens(self) -> Iterator[_Clause]:
        for (first, i), (second, j) in itertools.combinations(self._anchors(), 2):
            if i == j:
                continue
            sure, perhaps = self._sets_between(i, j)
            for noun in self.nouns:
                found = noun.sure & sure
                if found.bit_count() == 1 and found == noun.perhaps & perhaps and self._is_target(found):
                    yield _Clause('between', '', (noun, first, second), found)

    def _sets_between(self, i: int, j: int) -> tuple[int, int]:
        objects = self.scene.objects
        (x0, y0), (x1, y1) = objects[i].center, objects[j].center
        length = math.hypot(x1 - x0, y1 - y0)
        sure = perhaps = 0
        for number, own in enumerate(objects):
            if number in (i, j) or length == 0:
                continue
            dx, dy = own.center[0] - x0, own.center[1] - y0
            along = (dx * (x1 - x0) + dy * (y1 - y0)) / length**2
            aside = abs(dx * (y1 - y0) - dy * (x1 - x0)) / length**2
            is_sure = 0.25 <= along <= 0.75 and aside <= 0.2 and length >= 0.3 * self._short
            sure |= is_sure << number
            perhaps |= (0 < along < 1 and aside <= 0.6) << number
        return sure, perhaps

    def _closest(self) -> Iterator[_Clause]:
        objects = self.scene.objects
        for anchor, j in self._anchors():
            for noun in self.nouns:
                group = _numbers(noun.sure & ~(1 << j))
                if not noun.is_clear or len(group) < 2 or noun.word == anchor.word:
                    continue
                distances = sorted((math.dist(objects[i].center, objects[j].center), i) for i in group)
                is_clear = distances[1][0] >= CLOSER * distances[0][0] + 0.03 * self._short
                if is_clear and self._is_target(1 << distances[0][1]):
                    yield _Clause('closest', '', (noun, anchor), 1 << distances[0][1])

    def _alls(self) -> Iterator[_Clause]:
        for noun, group in self._groups(2):
            if noun.many and len(group) in COUNT_WORDS and self._is_target(noun.sure):
                yield _Clause('all', '', (noun,), noun.sure)

    def _no_targets(self) -> Iterator[_Clause]:
        """Of kinds that are not there, and of relations that no object is in."""
        for noun in self._absent():
            yield _Clause('name', '', (noun,), 0, is_absent=True)
            for phrase in ('left', 'right'):
                yield _Clause('extreme', phrase, (noun,), 0, is_absent=True)
        anchors = list(self._anchors())
        for (noun, number), (anchor, other) in itertools.permutations(anchors, 2):
            if number == other:
                continue
            for kind, names in (('relation', ('left', 'right', 'above', 'below')), ('depth', ('behind', 'front'))):
                for name in names:
                    if not noun.perhaps & self._relation(name)[other][1]:
                        yield _Clause(kind, name, (noun, anchor), 0, is_absent=True)

    def _absent(self) -> list[Noun]:
        """Words for kinds that are certainly not there: half of them are of kinds near those that are."""
        rng = np.random.default_rng([*self._seed, 7])
        names, near = self.cast.names, [name for own in self.scene.objects for name in self.cast.neighbours(own.name)]
        found: dict[str, Noun] = {}
        for attempt in range(4 * NUM_ABSENT):
            pool = near if attempt % 2 else names
            name = pool[int(rng.integers(len(pool)))]
            for word, is_held_out in self._vocabulary.of(self.cast.objects_of(name)[0]):
                if word not in found and (self.wordings == 'held_out' or not is_held_out):
                    noun = self._noun(word, is_held_out)
                    if not noun.perhaps:
                        found[word] = noun
            if len(found) >= NUM_ABSENT:
                break
        return list(found.values())

    # ---- wordings

    def _wordings(self, clause: _Clause) -> Iterator[Expression]:
        noun, *others = clause.nouns
        has_new_word = any(own.is_held_out for own in clause.nouns)
        words = dict(n=noun.word, ns=noun.many, k=clause.ordinal, c=COUNT_WORDS.get(clause.targets.bit_count()))
        words.update(zip('mo', (own.word for own in others), strict=False))
        kind = 'no-target' if clause.is_absent else clause.kind
        for template, is_new in _templates(clause.kind, clause.phrase):
            if template.startswith('where is') and is_plural(noun.word):
                continue
            if (is_new or has_new_word) == (self.wordings == 'held_out'):
                yield Expression(template.format(**words), tuple(_numbers(clause.targets)), kind)


@cache
def _templates(kind: str, phrase: str) -> tuple[tuple[str, bool], ...]:
    """Wordings of a kind of expression, and whether they are kept for testing."""
    found = []
    for line in _WORDINGS[kind][phrase]:
        first, *rest = (own.strip() for own in line.split('|'))
        found += [(first, False), *((own, True) for own in rest if own)]
    return tuple(found)


def _numbers(objects: int) -> list[int]:
    return [number for number in range(objects.bit_length()) if objects >> number & 1]


# ---- captions


def caption(scene: ObjectScene, num_objects: int, with_ground: bool) -> str:
    """Lists the objects that show most, kinds together: 'a zebra and two apples on grass'.

    Args:
        scene: The scene.
        num_objects: How many kinds at most.
        with_ground: Whether the ground is said, where it has a name.
    """
    counts: dict[str, int] = {}
    for own in sorted(scene.objects, key=lambda own: -own.visible):
        counts[own.name] = counts.get(own.name, 0) + 1
    parts = [_counted(name, count) for name, count in itertools.islice(counts.items(), num_objects)]
    text = parts[0] if len(parts) == 1 else f'{", ".join(parts[:-1])} and {parts[-1]}'
    return f'{text} {scene.ground}' if with_ground and scene.ground else text


def _counted(name: str, count: int) -> str:
    if count == 1:
        return with_article(name)
    many = plural(name)
    return f'{COUNT_WORDS.get(count, "many")} {many}' if many else f'{name} and more of it'
