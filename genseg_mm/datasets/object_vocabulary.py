"""Which words are true of which objects of a bank: certainly, perhaps, or certainly not."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from genseg_mm.datasets.object_bank import ObjectBank
from genseg_mm.datasets.object_words import CLASS_WORDS, LOOKALIKES, PEOPLE, PEOPLE_WORDS, words_of


class Vocabulary:
    """Which words are certainly, perhaps or certainly not true of the objects of a bank."""

    def __init__(self, bank: ObjectBank) -> None:
        self._bank = bank
        self._words = [tuple(_split(bank.names[index], bank.synonyms[index])) for index in range(len(bank))]
        self._sets = [[words_of(word) for word, _ in own] for own in self._words]
        lines: dict[str, set[int]] = {}
        for number, line in enumerate(LOOKALIKES):
            for name in line.split(', '):
                lines.setdefault(name.strip(), set()).add(number)
        # Of each object, and of each word's owners, the groups of lookalikes that they are in.
        self._alike = [set().union(*(lines.get(word, ()) for word, _ in own)) for own in self._words]
        self._alike_by_word: dict[str, set[int]] = {}
        for own, alike in zip(self._words, self._alike, strict=True):
            for word, _ in own:
                self._alike_by_word.setdefault(word, set()).update(alike)
        self._known: dict[tuple[str, int], int] = {}

    def of(self, index: int) -> tuple[tuple[str, bool], ...]:
        """The words for an object, its name first, and whether they are kept for testing."""
        return self._words[index]

    def truth(self, word: str, index: int) -> int:
        """2 if a word is certainly true of an object, 1 if it may be, 0 if it is not."""
        key = (word, index)
        if key not in self._known:
            self._known[key] = self._class_truth(word, index) if word in CLASS_WORDS else self._word_truth(word, index)
        return self._known[key]

    def _word_truth(self, word: str, index: int) -> int:
        if any(own == word for own, _ in self._words[index]):
            return 2
        wanted = words_of(word)
        if any(wanted <= own for own in self._sets[index]):
            return 1  # 'cat' for 'cat with tears of joy'
        if self._bank.groups[index] in PEOPLE and wanted & PEOPLE_WORDS:
            return 1
        return int(not self._alike[index].isdisjoint(self._alike_by_word.get(word, ())))

    def _class_truth(self, word: str, index: int) -> int:
        sure, perhaps, not_sure = CLASS_WORDS[word]
        name, kinds = self._bank.names[index], (self._bank.subgroups[index], self._bank.groups[index].lower())
        if any(own == part or own.startswith(f'{part}-') for own in kinds for part in (*sure, word)):
            return 1 if name in not_sure else 2
        if any(own == part or own.startswith(f'{part}-') for own in kinds for part in perhaps):
            return 1
        return int(bool(words_of(word) & words_of(name)))


def _split(name: str, synonyms: Sequence[str]) -> Iterator[tuple[str, bool]]:
    yield name, False
    for number, word in enumerate(synonyms):
        yield word, number % 2 == 0


@lru_cache(maxsize=4)
def vocabulary(bank: ObjectBank) -> Vocabulary:
    """The words of a bank, worked out once."""
    return Vocabulary(bank)
