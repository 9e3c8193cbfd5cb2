"""The four files of a leaderboard: every number is in them, no text breaks them, the page needs nothing else."""

import base64
import csv
import hashlib
import io
import json
import math
import re
import tempfile
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_records import make_record, make_suite
from PIL import Image, features

from genseg_mm.leaderboard import build, from_records, read_records
from genseg_mm.leaderboard.board import FIELDS
from genseg_mm.leaderboard.markdown import escaped, table_lines

CREATED = datetime(2026, 3, 5, 6, 7, tzinfo=UTC)
EVIL = '<script>alert("1")</script> | *a*_b_ & \'c\' `d` [e](javascript:f)'
FORMAT = 'webp' if features.check('webp') else 'jpeg'
MAIN_BARS, RUN_BARS = 6, 10  # of a line of the table of one column and of the list of runs
OUTLINE = Path(__file__).with_name('page_outline.txt')
VOID = {'meta', 'img', 'br', 'col', 'link', 'input'}


class Page(HTMLParser):
    """Elements, texts and tables of a page; refuses tags that do not close."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.open, self.raw, self.outline = [], '', [], {}, []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        shown = [f'{key}={value!r}' for key, value in attrs if key not in ('content', 'src')]
        self.outline.append(' ' * len(self.open) + ' '.join([f'<{tag}>', *shown]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ('script', 'style'):
            self.raw[self.open[-1]] = self.raw.get(self.open[-1], '') + data
        else:
            self.text += data
            self.outline.append(' ' * len(self.open) + repr(data))

    def attributes(self, tag, key):
        return [attrs[key] for name, attrs in self.elements if name == tag and key in attrs]


def page_of(records, suite, folder):
    paths = from_records(records, suite, CREATED).write(folder)
    return Page(next(path for path in paths if path.suffix == '.html').read_text('utf-8'))


@pytest.fixture
def out(tmp_path):
    """An output folder with results and pictures of two models and a control."""
    picture = Image.new('RGB', (900, 300), (200, 30, 30))
    examples = [
        dict(kind='best', file='examples/best_1.jpg', caption='val/3.jpg#id 2', score=0.931),
        dict(kind='worst', file='examples/gone.jpg', caption='gone', score=0.01),
    ]
    metrics = {'mIoU': 48.256789, 'threshold_radius': 50.125, 'N-acc': float('nan')}
    records = [
        make_record('ours', 'dram', metrics, examples=examples),
        make_record('theirs', 'ishape', {'mIoU': 31.4159}, items=6),
        make_record('oracle', 'dram', {'mIoU': 54.5}, kind='control'),
    ]
    for record in records:
        record.write(tmp_path / record.name[0] / record.name[1] / 'result.json')
    (tmp_path / 'ours/dram/examples').mkdir()
    picture.save(tmp_path / 'ours/dram/examples/best_1.jpg')
    return tmp_path


def test_every_number_of_every_record_is_on_the_page(out):
    suite = make_suite(reported='points', protocol='mIoU, one point per object, zero-shot')
    board = build(out, suite, CREATED)
    paths = board.write(out)
    assert [path.name for path in paths] == [f'leaderboard.{end}' for end in ('md', 'csv', 'html', 'json')]
    page = Page(paths[2].read_text('utf-8'))
    for record in board.records:
        for value in record.metrics.values():
            assert value != value or f'{value:.10g}' in page.text
        for section in (record.model, record.benchmark, record.dataset, record.run):
            for key, value in section.items():
                if isinstance(value, str) and key != 'suite' and key != 'name' and key != 'kind':
                    shown = '2026-03-04 05:06:07 UTC' if key == 'started' else value
                    assert shown in page.text, (key, value)
    for text in ('torch 2.13.0', '1,234,567', 'model 41.2 ms, data 3.1 ms, metric 5.7 ms (17.6 % outside the model)'):
        assert text in page.text
    assert '6 of 718 items' in page.text and 'made 2026-03-05 06:07 UTC' in page.text
    for row in board.tables[0].rows:
        assert row.method in page.text
        for cell in row.cells:
            assert cell.text in page.text
    assert read_records(out / 'leaderboard.json')[0].metrics['mIoU'] == 48.256789
    assert json.loads((out / 'leaderboard.json').read_text())['suite'] == 'made'


def test_noisy_pictures_become_smaller_and_small_ones_stay_as_they_are(out):
    noise = np.random.default_rng(0).integers(90, 160, (200, 500, 3), np.uint8)
    folder = out / 'ours/dram/examples'
    Image.fromarray(noise).save(folder / 'noise.jpg', quality=90)
    board = np.indices((64, 64)).sum(0) % 2 == 0  # nothing is smaller than its PNG
    Image.fromarray(board).save(folder / 'tiny.png')
    examples = [
        dict(kind='best', file=f'examples/{name}', caption=name, score=None) for name in ('noise.jpg', 'tiny.png')
    ]
    make_record(examples=examples).write(out / 'ours/dram/result.json')
    page = Page(build(out, make_suite(), CREATED).write(out)[2].read_text('utf-8'))
    large, tiny = (base64.b64decode(uri.partition('base64,')[2]) for uri in page.attributes('img', 'src'))
    assert len(large) < 0.5 * (folder / 'noise.jpg').stat().st_size
    with Image.open(io.BytesIO(large)) as image:
        assert image.size == (500, 200)
        shown = np.asarray(image.convert('RGB'), float)
    assert abs(shown.mean() - noise.mean()) < 2
    assert tiny == (folder / 'tiny.png').read_bytes()


def test_pictures_are_embedded_small_and_missing_ones_are_named(out):
    board = build(out, make_suite(), CREATED)
    page = Page(board.write(out)[2].read_text('utf-8'))
    [image] = [attrs for tag, attrs in page.elements if tag == 'img']
    assert image['src'].startswith(f'data:image/{FORMAT};base64,') and image['loading'] == 'lazy'
    assert (image['width'], image['height'], image['alt']) == ('720', '240', 'val/3.jpg#id 2')
    assert 'examples/gone.jpg: missing' in page.text and '0.93 val/3.jpg#id 2' in page.text


@pytest.mark.parametrize('file', ['../../../secret.jpg', '/etc/passwd', 'examples/text.jpg'])
def test_files_that_are_no_pictures_of_the_record_stay_out(file, out):
    (out.parent / 'secret.jpg').write_bytes((out / 'ours/dram/examples/best_1.jpg').read_bytes())
    (out / 'ours/dram/examples/text.jpg').write_text('no picture')
    example = dict(kind='best', file=file, caption='c', score=None)
    make_record(examples=[example]).write(out / 'ours/dram/result.json')
    page = Page(build(out, make_suite(), CREATED).write(out)[2].read_text('utf-8'))
    assert page.attributes('img', 'src') == []
    reason = 'not a picture that can be read' if 'text' in file else 'not in the folder of its record'
    assert f'{file}: {reason}' in page.text


def test_the_page_loads_nothing_and_runs_only_its_own_script(out):
    page = Page(build(out, make_suite(reported='points'), CREATED).write(out)[2].read_text('utf-8'))
    tags = {tag for tag, _ in page.elements}
    assert tags & {'link', 'iframe', 'object', 'embed', 'form', 'base', 'video'} == set()
    for tag, attrs in page.elements:
        assert not any(key.startswith('on') or key == 'style' for key in attrs), (tag, attrs)
        for key in ('src', 'srcset', 'data', 'poster'):
            assert attrs.get(key, 'data:').startswith('data:')
        if tag == 'a':
            assert attrs['href'].startswith('#')
    assert not re.search(r'url\(|@import|https?:', page.raw['style'] + page.raw['script'])
    [policy] = [attrs['content'] for _, attrs in page.elements if attrs.get('http-equiv')]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for kind in ('style', 'script'):
        digest = base64.b64encode(hashlib.sha256(page.raw[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_links_lead_somewhere_and_ids_are_unique(out):
    page = Page(build(out, make_suite(reported='points'), CREATED).write(out)[2].read_text('utf-8'))
    ids = [attrs['id'] for _, attrs in page.elements if 'id' in attrs]
    assert len(set(ids)) == len(ids)
    assert {link[1:] for link in page.attributes('a', 'href')} - set(ids) == set()


def test_the_tables_can_be_read_aloud_and_sorted_by_keyboard(out):
    page = Page(build(out, make_suite(reported='points', rank_by='DRAM'), CREATED).write(out)[2].read_text('utf-8'))
    tags = [tag for tag, _ in page.elements]
    assert tags.count('caption') == tags.count('table')
    headings = [attrs for tag, attrs in page.elements if tag == 'th']
    assert {attrs['scope'] for attrs in headings} == {'col', 'row', 'rowgroup'}
    assert tags.count('button') == sum(attrs['scope'] == 'col' for attrs in headings)
    assert [attrs['aria-sort'] for attrs in headings if attrs.get('aria-sort')] == ['ascending']
    regions = [attrs for _, attrs in page.elements if attrs.get('role') == 'region']
    assert all(attrs['tabindex'] == '0' and attrs['aria-label'] for attrs in regions)
    assert page.elements[0] == ('html', {'lang': 'en'})


def test_evil_texts_stay_texts(tmp_path):
    suite = make_suite(('DRAM',), title=EVIL, note=EVIL)
    suite['suite'].update(title=EVIL, description=EVIL)
    evil = dict(title=EVIL, command=EVIL, protocol=EVIL, hardware='</dd></script><script>x')
    example = dict(kind='best', file=EVIL, caption=EVIL, score=1)
    records = [make_record('ours', 'dram', {EVIL: 1.5, 'mIoU': 2.0}, examples=[example], **evil)]
    page = page_of(records, suite, tmp_path)
    assert [tag for tag, _ in page.elements].count('script') == 1
    assert page.text.count(EVIL) >= 6 and '</dd></script><script>x' in page.text
    assert page.attributes('title', 'x') == []
    markdown = (tmp_path / 'leaderboard.md').read_text('utf-8')
    rows = [line for line in markdown.splitlines() if line.startswith('| ')]
    assert '<script' not in markdown
    for line in rows:  # as many cells as the heading of its table
        assert len(re.findall(r'(?<!\\)\|', line)) in (MAIN_BARS, RUN_BARS)
    [line] = csv_lines(tmp_path / 'leaderboard.csv')
    assert line['method'] == EVIL and line['protocol'] == EVIL


def outline(folder):
    """A page with everything that a page may have, and with texts that would like to be markup."""
    texts = [EVIL, '{{ 7 * 7 }}{% raw %}{# x #}', '"><img src=x onerror=alert(1)>', '&lt;b&gt; </style></title>']
    folder = folder / 'ours' / 'dram'
    folder.mkdir(parents=True)
    Image.new('RGB', (4, 2)).save(folder / 'a.png')
    examples = [
        dict(kind=kind, file=file, caption=text, score=score)
        for kind, file, text, score in zip(
            ('best', 'best', 'worst', 'random'), ('a.png', 'a.png', 'a.png', 'b"<.png'), texts, (1, None, 0.25, 0),
            strict=True,
        )
    ]  # fmt: skip
    more = dict(zip(('title', 'command', 'hardware', 'commit'), texts, strict=True))
    first = make_record('ours', 'dram', {texts[0]: 1.5, 'mIoU': 21.0}, examples=examples, folder=folder, **more)
    first.run[texts[1]] = [texts[2]]
    records = [
        first,
        make_record('ours', 'ishape', {'mIoU': 55.55}, title=EVIL, items=6, difference=texts[2]),
        make_record('whole', 'dram', {'mIoU': 48.256}, config=None, checkpoint=None, num_parameters=None, seed=None),
        make_record('oracle', 'dram', {'mIoU': math.nan}, kind='control'),
    ]
    protocol = 'edge AP on BSDS500'
    table = dict(title=texts[3], note=texts[1], reported='edges', protocol=protocol, rank_by='BSDS500 AP')
    suite = make_suite(('DRAM', 'iShape'), models=('ours', 'theirs'), **table)
    suite['suite'].update(title=texts[0], description=texts[2])
    column = dict(name='BSDS500 AP', benchmark='dram', metric='mIoU')
    suite['tables'][0]['columns'].append(column)
    other = {**column, 'name': 'lower is better', 'benchmark': 'ishape', 'better': 'lower', 'unit': '<px>'}
    suite['tables'] += [
        dict(name='b', title=EVIL, reported='edges', columns=[column]),
        dict(name='c', title=texts[1], columns=[{**other, 'metric': 'none'}, {**other, 'name': 'x', 'better': None}]),
    ]
    html = from_records(records, suite, CREATED).write(folder)[2].read_text('utf-8')
    lines = '\n'.join(line for line in Page(html).outline if line != repr('\n'))  # of the doctype and the end
    return re.sub(r'(<.*)\n *(["\'].*)', r'\1 \2', lines) + '\n'  # texts stand beside their tags


def test_the_page_is_the_one_that_it_was(tmp_path):
    """Element by element. ``python tests/leaderboard/test_board.py`` writes the outline anew."""
    assert outline(tmp_path).splitlines() == OUTLINE.read_text('utf-8').splitlines()


def test_markdown_by_hand(tmp_path):
    records = [
        make_record('ours', 'dram', {'mIoU': 48.256}),
        make_record('theirs', 'dram', {'mIoU': 31.4}, items=6),
        make_record('disk', 'dram', {'mIoU': 54.5}, kind='control'),
    ]
    from_records(records, make_suite(('DRAM',)), CREATED).write(tmp_path)
    lines = (tmp_path / 'leaderboard.md').read_text('utf-8').splitlines()
    start = lines.index('## One point per object')
    assert lines[start + 2 : start + 9] == [
        '| \\# | Method |  | DRAM | Source |',
        '| --- | --- | --- | ---: | --- |',
        '| 1 | Ours | *measured* | **48.26** | measured 2026-03-04 |',
        '| – | Theirs | *measured* | 31.40 ⚠1 | measured 2026-03-04 |',
        '| – | Disk | *control* | 54.50 | measured 2026-03-04 |',
        '',
        '⚠1 DRAM: 6 of 718 items.',
    ]
    assert escaped('a|b\n<c>') == 'a\\|b &lt;c&gt;'
    assert escaped('[a](b)\n*c*') == '\\[a\\](b) \\*c\\*'
    assert escaped('\\`*_{}[]#~&') == r'\\\`\*\_\{\}\[\]\#\~&amp;'
    assert table_lines(['a', 'b'], [['1', '2']], numbers=(1,)) == ['| a | b |', '| --- | ---: |', '| 1 | 2 |']


def test_every_problem_has_one_footnote_and_an_unranked_table_says_so(tmp_path):
    records = [
        make_record('ours', 'dram', items=6),
        make_record('ours', 'ishape', items=9),
        make_record('theirs', 'dram', items=6),
        make_record('theirs', 'ishape', items=6),
    ]
    page = page_of(records, make_suite(), tmp_path)
    markdown = (tmp_path / 'leaderboard.md').read_text('utf-8')
    [ours] = [line for line in markdown.splitlines() if line.startswith('| – | Ours')]
    assert ours.split(' | ')[3:5] == ['48.25 ⚠1', '48.25 ⚠2']
    assert '⚠1 DRAM, iShape: 6 of 718 items; ⚠2 iShape: 9 of 718 items.' in markdown
    assert '⚠1 DRAM, iShape: 6 of 718 items⚠2 iShape: 9 of 718 items' in page.text
    for text in (markdown, page.text):
        assert text.count('Nothing is ranked here: all measured numbers are of incomplete') == 1
    assert 'Ranked by' not in page.text
    page = page_of([*records, make_record('whole', 'dram')], make_suite(), tmp_path)
    assert 'Nothing is ranked here' not in page.text and 'Ranked by' in page.text


def csv_lines(path):
    return list(csv.DictReader(path.read_text('utf-8').splitlines()))


def test_csv_comes_back(out):
    suite = make_suite(reported='points', protocol='mIoU, one point per object, zero-shot')
    board = build(out, suite, CREATED)
    lines = csv_lines(board.write(out)[1])
    cells = [cell for row in board.tables[0].rows for cell in row.cells if cell.value is not None]
    assert len(lines) == len(cells) == 35
    assert [float(line['value']) for line in lines] == [cell.value for cell in cells]
    ours = next(line for line in lines if line['method'] == 'Ours')
    assert ours == dict(
        table='points', column='DRAM', method='Ours', value='48.256789', unit='%', origin='measured', status='model',
        protocol='one random pixel, seed 0', source='ours/dram/result.json', ranked='yes', items='718', expected='718',
        config_sha256='c0' * 32, checkpoint_sha256='ab' * 32, date='2026-03-04T05:06:07+00:00',
    )  # fmt: skip
    ranked = {(line['method'], line['ranked']) for line in lines}
    assert {('Theirs', 'no'), ('Oracle', 'no'), ('SAM', 'yes')} <= ranked
    assert ('gen2seg SD, trained on COCO', 'no') in ranked
    assert tuple(ours) == FIELDS


@pytest.mark.parametrize('name', ['=HYPERLINK("x")', '+1-1', '-cmd', '@SUM(A1)', '\t=1'])
def test_csv_has_no_formulas_and_its_numbers_stay(tmp_path, name):
    record = make_record('ours', 'dram', {'mIoU': -2.5}, title=name, protocol=name)
    path = from_records([record], make_suite(('DRAM',)), CREATED).write(tmp_path)[1]
    with path.open(encoding='utf-8', newline='') as file:
        (line,) = [own for own in csv.DictReader(file) if own['origin'] == 'measured']
    assert (line['method'], line['protocol'], line['value']) == (f"'{name}", f"'{name}", '-2.5')


def test_an_empty_folder_gives_the_published_rows(tmp_path):
    suite = make_suite(('DRAM',), reported='points', protocol='mIoU, one point per object, zero-shot')
    board = build(tmp_path / 'none', suite, CREATED)
    paths = board.write(tmp_path / 'none')
    page = Page(paths[2].read_text('utf-8'))
    assert '0 models measured' in page.text and 'Ours (all columns), Theirs (all columns)' in page.text
    assert board.tables[0].rows[0].method == 'SAM' and board.tables[0].rows[0].place == 1
    assert read_records(paths[3]) == []


def test_a_broken_result_is_named(out):
    (out / 'ours/dram/result.json').write_text('{')
    with pytest.raises(ValueError, match=r'dram.result\.json is not a whole JSON file'):
        build(out, make_suite(), CREATED)


def test_tables_in_which_nothing_is_measured_are_named_in_one_line(tmp_path):
    suite = make_suite(columns=('DRAM',))
    other = dict(name='edges', title='Boundaries', reported='edges', protocol='any')
    other['columns'] = [dict(name='Edge AP', benchmark='bsds500', metric='AP')]
    suite['benchmarks']['bsds500'] = dict(task='edges', protocol='any')
    suite['tables'].append(other)
    for records, sections in (([make_record()], 1), ([], 2)):  # a new board shows what is published
        paths = from_records(records, suite, CREATED).write(tmp_path)
        markdown, page = (
            next(path for path in paths if path.suffix == ending).read_text('utf-8') for ending in ('.md', '.html')
        )
        assert ('## One point per object' in markdown) and 'id="table-1"' in page
        assert ('## Boundaries' in markdown) == ('id="table-2"' in page) == (sections == 2)
        for text in (markdown, page):
            assert ('Nothing is measured yet for: Boundaries.' in text) == (sections == 1)


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as folder:
        OUTLINE.write_text(outline(Path(folder)), 'utf-8')
