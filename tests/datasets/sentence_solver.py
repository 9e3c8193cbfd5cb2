"""Finds what a sentence means by reading it: words and pixels alone, no margins, nothing of how it was made."""

import re
from collections.abc import Sequence

import numpy as np

from genseg_mm.datasets.object_words import plural

COUNTS = dict(two=2, three=3, four=4, five=5, six=6)
PLACES = dict(first=0, second=1, third=2, fourth=3, fifth=4)
# Pattern -> rule and its arguments; {n} stands for one, {ns} for several, {m} and {o} for others.
PATTERNS = (
    ('the (?P<n>.+?) between the (?P<m>.+?) and the (?P<o>.+)', 'between'),
    ('the (?P<n>.+?) with the (?P<m>.+?) and the (?P<o>.+?) on either side', 'between'),
    ('the (?P<k>second|third|fourth|fifth) (?P<n>.+?) from the (?P<side>left|right)', 'ordinal'),
    ('counting from the (?P<side>left|right), the (?P<k>second|third|fourth|fifth) (?P<n>.+)', 'ordinal'),
    ('the (?P<word>leftmost|rightmost|topmost|bottom) (?P<n>.+)', 'extreme'),
    ('the (?P<n>.+?) (?P<word>furthest to the left|furthest to the right|at the very (?:top|bottom))', 'extreme'),
    ('the (?P<word>largest|biggest|smallest|tiniest) (?P<n>.+)', 'size'),
    ('the (?P<n>.+?) (?:closest to|nearest) the (?P<m>.+)', 'closest'),
    ('the (?P<n>.+?) (?P<word>to the (?:left|right) of|above|below|behind|in front of) the (?P<m>.+)', 'relation'),
    ('the (?P<n>.+?) that ha(?:s|ve) the (?P<m>.+?) (?P<word>to its left|to its right|to their left|to their right|'
     'above it|above them|below it|below them)', 'relation'),
    ('the (?P<n>.+?) that the (?P<m>.+?) partly hides', 'hidden'),
    ('the (?P<n>.+?) that partly hides the (?P<m>.+)', 'hiding'),
    ('all the (?P<n>.+)', 'all'),
    ('every (?P<n>.+)', 'all'),
    ('the (?P<k>two|three|four|five|six) (?P<n>.+)', 'count'),
    ('(?:find |where is )?the (?P<n>.+?)\\??', 'name'),
)  # fmt: skip
CLASSES = {
    'animal': 'animal', 'bird': 'animal-bird', 'fruit': 'food-fruit fruit', 'vegetable': 'food-vegetable vegetable',
    'flower': 'plant-flower', 'musical instrument': 'musical-instrument', 'piece of clothing': 'clothing',
    'food item': 'food',
}  # fmt: skip


class Solver:
    """What sentences mean in one scene.

    Args:
        ids: (H, W), ``i + 1`` where object i shows.
        whole: Of each object, from far to near, where it would show if nothing were in front of it, (H, W) bool.
        words: Of each object its name and synonyms.
        groups: Of each object its group and subgroup.
        loose: Whether a noun is also true of what has its words among others ('cat' of 'cat with tears of joy').
    """

    def __init__(
        self, ids: np.ndarray, whole: Sequence, words: Sequence, groups: Sequence, loose: bool = False
    ) -> None:
        self.ids, self.whole, self.words, self.groups, self.loose = ids, whole, words, groups, loose
        self.all = range(len(words))
        pixels = [np.argwhere(ids == number + 1) for number in self.all]
        self.y, self.x = ([float(own[:, axis].mean()) for own in pixels] for axis in (0, 1))
        self.area = [len(own) for own in pixels]

    def solve(self, text: str) -> set[int]:
        """The objects that a sentence means, in the first way to read it that makes sense."""
        for pattern, rule in PATTERNS:
            match = re.fullmatch(pattern, text)
            if match is None:
                continue
            parts = match.groupdict()
            known = [self.meant(parts[key]) for key in 'nmo' if parts.get(key) is not None]
            found = None if None in known else getattr(self, f'_{rule}')(*known, parts)
            if found is not None:
                return found
        raise AssertionError(f'cannot read {text!r}')

    def meant(self, noun: str) -> set[int] | None:
        """Objects that a noun is true of; None where it is no noun at all."""
        if noun in ('object', 'objects'):
            return set(self.all)
        found = {number for number in self.all if self._is(noun, number)}
        return found or (set() if noun in self.lexicon else None)

    def _is(self, noun: str, number: int) -> bool:
        for one in (noun, *self.singulars.get(noun, ())):
            if one in CLASSES and any(
                own == kind or own.startswith(f'{kind}-')
                for kind in CLASSES[one].split()
                for own in self.groups[number]
            ):
                return True
            if one in self.words[number]:
                return True
            if self.loose and any(
                set(re.split('[ -]', one)) <= set(re.split('[ -]', own)) for own in self.words[number]
            ):
                return True
        return False

    lexicon: frozenset[str] = frozenset()
    singulars: dict[str, tuple[str, ...]] = {}

    @classmethod
    def learn(cls, words: Sequence[str]) -> None:
        """All words that there are."""
        singulars: dict[str, tuple[str, ...]] = {}
        for word in (*words, *CLASSES):
            many = plural(word)
            if many and many != word:
                singulars[many] = (*singulars.get(many, ()), word)
        cls.lexicon, cls.singulars = frozenset((*words, *CLASSES, *singulars)), singulars

    # ---- rules

    def _one(self, found: set[int]) -> int:
        assert len(found) == 1, f'what another object is placed by must be one, but got {found}'
        return next(iter(found))

    def _name(self, n: set[int], parts: dict) -> set[int]:
        return n

    def _all(self, n: set[int], parts: dict) -> set[int]:
        assert len(n) != 1
        return n

    def _count(self, n: set[int], parts: dict) -> set[int] | None:
        return n if len(n) == COUNTS[parts['k']] else None  # 'the two hearts' may be the name of one object

    def _extreme(self, n: set[int], parts: dict) -> set[int]:
        word = parts['word']
        axis = self.x if 'left' in word or 'right' in word else self.y
        pick = min if 'left' in word or 'top' in word else max
        return {pick(n, key=axis.__getitem__)} if n else set()

    def _size(self, n: set[int], parts: dict) -> set[int]:
        pick = max if parts['word'] in ('largest', 'biggest') else min
        return {pick(n, key=self.area.__getitem__)} if n else set()

    def _ordinal(self, n: set[int], parts: dict) -> set[int]:
        order = sorted(n, key=self.x.__getitem__, reverse=parts['side'] == 'right')
        return set(order[PLACES[parts['k']] : PLACES[parts['k']] + 1])

    def _relation(self, n: set[int], m: set[int], parts: dict) -> set[int]:
        word, anchor = parts['word'], self._one(m)
        n = n - {anchor}
        if word == 'behind':
            return self._hidden(n, m, parts)
        if word == 'in front of':
            return self._hiding(n, m, parts)
        # 'has the owl to its right' is 'to the left of the owl'
        flipped = {'to its left': 'right', 'to their left': 'right', 'to its right': 'left', 'to their right': 'left',
                   'above it': 'below', 'above them': 'below', 'below it': 'above', 'below them': 'above'}  # fmt: skip
        side = flipped.get(word) or word.replace('to the ', '').replace(' of', '')
        axis, sign = dict(left=(self.x, 1), right=(self.x, -1), above=(self.y, 1), below=(self.y, -1))[side]
        return {own for own in n if sign * (axis[anchor] - axis[own]) > 0}

    def _hidden(self, n: set[int], m: set[int], parts: dict) -> set[int]:
        anchor = self._one(m)
        return {own for own in n if own < anchor and (self.whole[own] & self.whole[anchor]).any()}

    def _hiding(self, n: set[int], m: set[int], parts: dict) -> set[int]:
        anchor = self._one(m)
        return {own for own in n if own > anchor and (self.whole[own] & self.whole[anchor]).any()}

    def _between(self, n: set[int], m: set[int], o: set[int], parts: dict) -> set[int]:
        first, second = self._one(m), self._one(o)
        length = self._distance(first, second)
        found = set()
        for own in n - {first, second}:
            to_first, to_second = self._distance(own, first), self._distance(own, second)
            is_past = max(to_first**2, to_second**2) - min(to_first**2, to_second**2) > length**2
            if not is_past and to_first + to_second <= 1.1 * length:
                found.add(own)
        return found

    def _closest(self, n: set[int], m: set[int], parts: dict) -> set[int]:
        anchor = self._one(m)
        return {min(n - {anchor}, key=lambda own: self._distance(own, anchor))}

    def _distance(self, i: int, j: int) -> float:
        return ((self.x[i] - self.x[j]) ** 2 + (self.y[i] - self.y[j]) ** 2) ** 0.5
