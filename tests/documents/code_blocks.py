"""The code blocks of the project's documents, by a CommonMark parser.

A block says by its language what it is: ``python``, ``bash``, ``text`` (what a command prints); a python block whose
first line begins with ``# config`` is a config, with ``# file NAME`` a file that the commands of its document use.
Directives of MyST (``{toctree}``) are Sphinx's to read, not code. Code that cannot run as it stands, on any machine,
says so in a comment of the same line, ``# needs: data`` (real datasets), ``# needs: download`` (released weights) or
both: it runs on twins, small ones of the same formats in the same places.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / 'docs/recipes.md'  # tests/documents/test_recipes.py: most need packages of others
DIRECTIVES = ('toctree', 'include', 'eval-rst', 'model-zoo', 'published-counts', 'room')
LANGUAGES = ('python', 'bash', 'text')
NEEDS = ('data', 'download')
_NEEDS = re.compile(r'#.*?\bneeds: ((?:\w+)(?:, (?:data|download)\b)*)')


@dataclass(frozen=True)
class CodeBlock:
    """A block.

    Attributes:
        document: Path below the root of the project.
        line: Of its first line of code, from 1.
        language: After the fence.
        source: The code.
    """

    document: str
    line: int
    language: str
    source: str

    @property
    def kind(self) -> str:
        """python, config, file, bash or text."""
        first = self.source.split(maxsplit=2)[:2]
        named = self.language == 'python' and first[:1] == ['#'] and first[1] in ('config', 'file')
        return first[1] if named else self.language

    @property
    def file(self) -> str:
        """Name of a block that is a file."""
        return self.source.split(maxsplit=3)[2]

    @property
    def where(self) -> str:
        return f'{self.document}:{self.line}'


def documents() -> list[Path]:
    """README.md, those of the configs, and all of docs/ but the recipes, which have a test of their own."""
    pages = [ROOT / 'README.md', *sorted((ROOT / 'configs').rglob('*.md')), *sorted((ROOT / 'docs').rglob('*.md'))]
    return [page for page in pages if page != RECIPES]


def code_blocks(path: Path) -> list[CodeBlock]:
    """All blocks of a document, indented ones too, in their order; no directives of Sphinx."""
    name = path.relative_to(ROOT).as_posix()
    return [
        CodeBlock(name, token.map[0] + 2, token.info.strip(), token.content)
        for token in MarkdownIt('commonmark').parse(path.read_text(encoding='utf-8'))
        if token.type in ('fence', 'code_block') and not _is_directive(token.info)
    ]


def _is_directive(info: str) -> bool:
    """Whether a fence is one of the directives that carry no code."""
    return info.startswith('{') and info[1:].partition('}')[0] in DIRECTIVES


def needs_of(line: str) -> set[str]:
    """What a line of code says that it needs."""
    found = _NEEDS.search(line)
    return set(found[1].split(', ')) if found else set()
