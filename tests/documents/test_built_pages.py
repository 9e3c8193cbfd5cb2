"""The pages that Sphinx builds: no warning, no link that leads nowhere, tables that say what the code says."""

import hashlib
import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from made_files import make_data

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """What a page holds: links, places that links may name, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.text = ''
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [given[key] for key in ('href', 'src') if given.get(key)]
        self.anchors |= {given[key] for key in ('id', 'name') if given.get(key)}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope='module')
def pages(tmp_path_factory) -> dict[str, Page]:
    """All pages by their path, as the one command builds them."""
    for package in ('sphinx', 'furo', 'myst_parser'):
        pytest.importorskip(package, reason="pip install 'genseg_mm[docs]'")
    out = tmp_path_factory.mktemp('pages')
    command = ['bash', str(ROOT / 'tools/build_docs.sh'), str(out)]
    environment = {'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT), 'PATH': '/usr/bin:/bin'}
    built = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    assert 'WARNING' not in built.stderr
    return {path.relative_to(out).as_posix(): Page(path) for path in sorted(out.rglob('*.html'))} | {'': out}


def dead_links(pages: dict, out: Path) -> list[str]:
    """Links inside the pages that lead to no file, or to no place in it."""
    dead = []
    for name, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (out / name).parent / unquote(parts.path) if parts.path else out / name
            if not target.is_file():
                dead.append(f'{name}: {link}')
            elif parts.fragment and target.suffix == '.html':
                other = pages[target.resolve().relative_to(out.resolve()).as_posix()]
                if unquote(parts.fragment) not in other.anchors:
                    dead.append(f'{name}: {link}')
    return dead


def test_the_check_sees_dead_links(tmp_path):
    (tmp_path / 'a.html').write_text('<a href="b.html#x">1</a><a href="#y">2</a><img src="c.png"><a href="b.html#z">')
    (tmp_path / 'b.html').write_text('<p id="x">there</p>')
    pages = {path.name: Page(path) for path in tmp_path.glob('*.html')}
    assert dead_links(pages, tmp_path) == ['a.html: #y', 'a.html: c.png', 'a.html: b.html#z']


@pytest.mark.slow
def test_no_link_of_the_pages_leads_nowhere(pages):
    out = pages['']
    own = {name: page for name, page in pages.items() if name}
    assert len(own) > 20 and sum(len(page.links) for page in own.values()) > 2000
    assert dead_links(own, out) == []


@pytest.mark.slow
def test_the_zoo_is_that_of_the_metafiles(pages):
    text = pages['model_zoo.html'].text
    for collection in ('gen2seg', 'genmask'):
        models = yaml.safe_load((ROOT / f'configs/{collection}/metafile.yaml').read_text())['Models']
        for model in models:
            assert model['Name'] in text
            if model['Weights']:
                digest = hashlib.sha256((ROOT / model['Weights']).read_bytes()).hexdigest()
                assert digest[:16] in text
                for result in model['Results']:
                    for metric, value in result['Metrics'].items():
                        assert f'{result["Dataset"]}: ' in text and f'{metric} {value}' in text


def test_tables_of_the_zoo_stand_in_the_repository(monkeypatch):
    """As they read there: a directive of Sphinx would show nothing."""
    pytest.importorskip('sphinx', reason="pip install 'genseg_mm[docs]'")
    monkeypatch.syspath_prepend(ROOT / 'docs')
    import generated_parts

    text = (ROOT / 'docs/model_zoo.md').read_text()
    assert len(re.findall(r'<!-- \w+: (?:weights|to train) -->', text)) == 4
    assert generated_parts.with_tables(text) == text, 'python docs/generated_parts.py writes them anew'
    changed = text.replace('mIoU **82.2**', 'mIoU **99.9**')
    assert changed != text and generated_parts.with_tables(changed) == text


@pytest.mark.parametrize('collection', ['gen2seg', 'genmask'])
def test_scores_of_the_metafiles_stand_in_their_readme(collection):
    """Where the commands and controls are."""
    folder = ROOT / 'configs' / collection
    text = (folder / 'README.md').read_text()
    trained = [one for one in yaml.safe_load((folder / 'metafile.yaml').read_text())['Models'] if one['Weights']]
    assert len(trained) >= 2
    for model in trained:
        for result in model['Results']:
            for value in result['Metrics'].values():
                assert f' {value}' in text, (model['Name'], result)


@pytest.mark.slow
def test_every_public_module_is_in_the_reference(pages):
    anchors = {anchor for name, page in pages.items() if name.startswith('api/') for anchor in page.anchors}
    modules = [
        '.'.join(path.relative_to(ROOT).with_suffix('').parts)
        for path in (ROOT / 'genseg_mm').rglob('*.py')
        if path.name != '__init__.py' and '.mim' not in path.parts
    ]
    inside = {'genseg_mm.config_text', 'genseg_mm.deferred_imports', 'genseg_mm.moved_modules', 'genseg_mm.__main__'}
    left = {name for name in modules if f'module-{name}' not in anchors} - inside
    assert [name for name in left if importlib.util.find_spec('gradio') or not name.startswith('genseg_mm.app.')] == []


def test_counts_of_the_pages_are_those_that_copies_are_compared_with(tmp_path, monkeypatch):
    """``published_counts()`` of the tiny copies: each number is in the table of its class, marked if not confirmed."""
    pytest.importorskip('sphinx', reason="pip install 'genseg_mm[docs]'")
    monkeypatch.syspath_prepend(ROOT / 'docs')
    import generated_parts

    make_data(tmp_path)
    settings = {
        'CocoInstanceDataset': dict(data_root='coco', ann_file='annotations/instances_val2017.json'),
        'RefCOCODataset': dict(data_root='coco', split='val'),
        'GRefCOCODataset': dict(data_root='coco', split='val'),
        'ReasonSegDataset': dict(data_root='.', split='val'),
        'DRAMDataset': dict(data_root='DRAM_processed'),
        'EgoHOSDataset': dict(data_root='egohos', split='test_indomain'),
        'IShapeDataset': dict(data_root='ishape_dataset', subset='wire', split=None),
        'PIDRayDataset': dict(data_root='pidray', split='hard'),
        'BSDS500Dataset': dict(data_root='BSDS500', split='test'),
    }
    settings['CocoInstanceDataset']['data_prefix'] = dict(img='val2017/')
    for name, arguments in settings.items():
        arguments['data_root'] = str(tmp_path / arguments['data_root'])
        dataset = getattr(generated_parts.genseg_mm.datasets, name)(test_mode=True, **arguments)
        listed = {(what, number, sure) for _, what, number, sure in generated_parts.published(name)}
        numbers = [(count.what, count.published, count.confirmed) for count in dataset.published_counts()]
        assert numbers, name
        for what, number, sure in numbers:
            assert any(number == own and sure == known for _, own, known in listed), (name, what, number, listed)
    assert set(generated_parts.COUNTED) - set(settings) == {'HypersimDataset', 'VirtualKITTI2Dataset'}
    assert ('`testA`', '750') in {tuple(row) for row in generated_parts.counts('GRefCOCODataset')}
    assert 'easy' in str(generated_parts.counts('PIDRayDataset')[2]) and 'not confirmed' in str(
        generated_parts.counts('PIDRayDataset')[2]
    )
