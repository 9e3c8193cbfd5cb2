"""What the pages take from the code: the model zoo, counts of complete datasets, the reference of each room.

Directives for MyST pages:

- ``{published-counts} CLASS``: the table of what is published of a dataset, its ``PUBLISHED``.
- ``{room} NAME``: the modules of a room of ``genseg_mm/``, by autodoc; ``{room} others``: of all other rooms.

The tables of model_zoo.md stand in it, so that it reads in the repository, too; ``python docs/generated_parts.py``
writes them anew from configs/*/metafile.yaml.
"""

import hashlib
import importlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import genseg_mm.datasets

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'genseg_mm'
INSIDE = {'__init__', '__main__', 'config_text', 'deferred_imports', 'moved_modules', '.mim'}  # rooms that nobody calls
PROMPTS = dict(gen2seg='--points 40,60', shapes="--texts 'the red circle'", objects="--texts 'the leftmost cat'")
# class -> what its numbers count, and whether they were all read in their sources
COUNTED = {
    'HypersimDataset': (('frames',), True),
    'VirtualKITTI2Dataset': (('frames of a variation and camera',), True),
    'CocoInstanceDataset': (('pictures',), True),
    'RefCOCODataset': (('objects', 'sentences'), True),
    'GRefCOCODataset': (('pictures',), True),
    'ReasonSegDataset': (('pictures',), True),
    'DRAMDataset': (('pictures',), False),
    'EgoHOSDataset': (('pictures',), False),
    'IShapeDataset': (('pictures', 'instances'), True),
    'PIDRayDataset': (('pictures',), True),
    'BSDS500Dataset': (('pictures',), True),
}


def models(collection: str) -> list[dict]:
    """Entries of a metafile, as mim reads them.

    Args:
        collection: Name of a folder of configs/.

    Raises:
        FileNotFoundError: If it has no metafile.
    """
    path = ROOT / 'configs' / collection / 'metafile.yaml'
    return yaml.safe_load(path.read_text(encoding='utf-8'))['Models']


def sha256(weights: str) -> str:
    """The first 16 digits of the hash of a file below the root of the project."""
    return hashlib.sha256((ROOT / weights).read_bytes()).hexdigest()[:16]


def zoo(collection: str, with_weights: bool) -> list[list[str]]:
    """Rows of the table of a collection, its head first, in Markdown."""
    if not with_weights:
        rows = [['config', 'how to train it']]
        for model in models(collection):
            if not model['Weights']:
                rows.append([f'`{model["Config"]}`', f'`genseg train {model["Name"]}`'])  # noqa: PERF401
        return rows
    rows = [['name', 'measured', 'weights, size, SHA-256', 'commands']]
    for model in models(collection):
        if not model['Weights']:
            continue
        file = ROOT / model['Weights']
        scores = [
            f'{result["Dataset"]}: ' + ', '.join(f'{name} **{value}**' for name, value in result['Metrics'].items())
            for result in model['Results']
        ]
        world = 'objects' if 'objects' in model['Name'] else 'shapes'
        prompt = PROMPTS[world if collection == 'genmask' else collection]
        commands = [
            f'`genseg predict PICTURE {model["Name"]} {prompt}`',
            f'`genseg test {model["Name"]}`',
        ]
        rows.append(
            [
                f'`{model["Name"]}`',
                '<br>'.join(scores),
                f'`{file.name}`<br>{file.stat().st_size / 2**20:.1f} MiB<br>`{sha256(model["Weights"])}...`',
                '<br>'.join(commands),
            ]
        )
    return rows


def published(name: str) -> Iterator[tuple[str, str, int, bool]]:
    """What is published of a dataset.

    Args:
        name: Of its class.

    Yields:
        Part of the dataset, what is counted, number, whether we have read it in its source.
    """
    cls = getattr(genseg_mm.datasets, name)
    counted, confirmed = COUNTED[name]
    unsure = getattr(cls, 'UNCONFIRMED', ())

    def walk(parts: tuple, value: Any) -> Iterator[tuple[str, str, int, bool]]:
        if isinstance(value, dict):
            for key, own in value.items():
                yield from walk((*parts, key), own)
            return
        numbers = value if isinstance(value, tuple) else (value,)
        words = ['all' if part is None else f'version {part}' if isinstance(part, int) else part for part in parts]
        for what, number in zip(counted, numbers, strict=True):
            if number is not None:
                yield ', '.join(words) or 'all', what, number, confirmed and parts not in unsure

    yield from walk((), cls.PUBLISHED)


def counts(name: str) -> list[list[str]]:
    """Rows of the table of a dataset, its head first, in Markdown."""
    rows = [['part', *COUNTED[name][0]]]
    for part, what, number, sure in published(name):
        if rows[-1][0] != f'`{part}`':
            rows.append([f'`{part}`', *[''] * len(COUNTED[name][0])])
        rows[-1][rows[0].index(what)] = f'{number:,}' + ('' if sure else ' (not confirmed)')
    return rows


def modules(room: str) -> list[str]:
    """Names of the modules of a room, or of the one file that it is; 'others': of all that no page names."""
    if room == 'others':
        pages = '\n'.join(path.read_text(encoding='utf-8') for path in (ROOT / 'docs/api').glob('*.md'))
        named = re.findall(r'^```\{room\} (\S+)', pages, re.MULTILINE)
        rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == '.py' or any(path.glob('*.py'))}
        return [module for own in sorted(rooms - set(named) - INSIDE) for module in modules(own)]
    place = PACKAGE / room
    if not place.is_dir():
        return [f'genseg_mm.{room}']
    files = [path for path in sorted(place.rglob('*.py')) if path.name != '__init__.py']
    return ['.'.join(path.relative_to(ROOT).with_suffix('').parts) for path in files]


def lacks(module: str) -> str | None:
    """The optional package that is not here and without which a module cannot be imported, if any."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith('genseg_mm'):
            raise
        return error.name
    return None


class Generated(SphinxDirective):
    """Markdown lines, parsed in the place of the directive."""

    has_content = False
    required_arguments = 1

    def lines(self) -> list[str]:
        """Lines of Markdown."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        box = nodes.container()
        self.state.nested_parse(StringList(self.lines(), source=self.env.doc2path(self.env.docname)), 0, box)
        return box.children


def table(rows: list[list[str]]) -> list[str]:
    """A table in Markdown; the first row is its head."""
    lines = ['| ' + ' | '.join(row) + ' |' for row in rows]
    return [lines[0], '|' + '---|' * len(rows[0]), *lines[1:]]


def with_tables(text: str) -> str:
    """model_zoo.md with the tables of the metafiles, each below a comment such as ``<!-- gen2seg: weights -->``."""

    def anew(found: re.Match) -> str:
        return '\n'.join([found[1], '', *table(zoo(found[2], found[3] == 'weights')), ''])

    return re.sub(r'(<!-- (\w+): (weights|to train) -->)\n\n(?:\|.*\n)*', anew, text)


class PublishedCounts(Generated):
    """``{published-counts} CLASS``."""

    def lines(self) -> list[str]:
        """See :class:`Generated`."""
        return table(counts(self.arguments[0]))


class Room(Generated):
    """``{room} NAME``."""

    def lines(self) -> list[str]:
        """See :class:`Generated`."""
        lines = []
        for module in modules(self.arguments[0]):
            short = module.removeprefix('genseg_mm.')
            lines += [f'## `{short}`', '']
            if lacks(module):  # docs are built without it, but say so
                lines += [
                    f'Needs the optional package `{lacks(module)}`, which was not there when this page was built.',
                    '',
                ]
            else:
                lines += ['```{eval-rst}', f'.. automodule:: {module}', '```', '']
        return lines

    def run(self) -> list[nodes.Node]:
        """Sections, which the list of contents of the page knows."""
        box = nodes.section()
        text = StringList(self.lines(), source=self.env.doc2path(self.env.docname))
        self.state.nested_parse(text, 0, box, match_titles=True)
        return box.children


def no_network_is_no_fault(record: logging.LogRecord) -> bool:
    """Links to other projects need their inventories; where there is no network, the pages build without them."""
    return 'failed to reach any of the inventories' not in record.getMessage()


def setup(app: Sphinx) -> dict:
    """Called by Sphinx."""
    app.add_directive('published-counts', PublishedCounts)
    app.add_directive('room', Room)
    for name in ('', '._load', '._shared', '._resolve'):
        logging.getLogger(f'sphinx.sphinx.ext.intersphinx{name}').addFilter(no_network_is_no_fault)
    return dict(parallel_read_safe=True, parallel_write_safe=True)


if __name__ == '__main__':
    page = ROOT / 'docs/model_zoo.md'
    page.write_text(with_tables(page.read_text(encoding='utf-8')), encoding='utf-8')
