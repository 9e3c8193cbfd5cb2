"""Text, JSON and tables from disk: marks, encodings, nesting, quotes, line numbers; cells and files written."""

import codecs
import csv
import io
import json
import math
import os

import pytest

from genseg_mm.files import (
    BROKEN_TEXT,
    EMPTY_TEXT,
    check_texts,
    csv_cell,
    parse_json,
    read_json,
    read_json_lines,
    read_lines,
    read_table,
    usable_text,
)

TEXT = '{"name": "été 雪"}\n'
ENCODED = {
    'utf-8': TEXT.encode(),
    'utf-8 with a mark': codecs.BOM_UTF8 + TEXT.encode(),
    'utf-16-le': codecs.BOM_UTF16_LE + TEXT.encode('utf-16-le'),
    'utf-16-be': codecs.BOM_UTF16_BE + TEXT.encode('utf-16-be'),
    'utf-32-le': codecs.BOM_UTF32_LE + TEXT.encode('utf-32-le'),
}


def rows(path, data: bytes | str, **kwargs) -> list:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return list(read_table(path, **kwargs))


@pytest.mark.parametrize('encoding', ENCODED)
def test_every_marked_encoding_is_the_same_text(tmp_path, encoding):
    path = tmp_path / 'a.jsonl'
    path.write_bytes(ENCODED[encoding])
    assert read_json(path) == dict(name='été 雪')
    assert list(read_lines(path)) == [(1, TEXT)]
    assert list(read_json_lines(path)) == [(1, dict(name='été 雪'))]
    table = TEXT.replace('"', '').encode(encoding.split(' ')[0])
    mark = ENCODED[encoding][: len(ENCODED[encoding]) - len(TEXT.encode(encoding.split(' ')[0]))]
    assert rows(tmp_path / 'a.tsv', mark + table + table) == [(2, {'{name: été 雪}': '{name: été 雪}'})]


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        ('a\nb\ncaf\xe9'.encode('latin-1'), r'a\.txt(, line 3)?: expected UTF-8, but got the byte 0xe9'),
        (b'\xff\xfea', r'a\.txt: expected UTF-16, but got the byte 0x61'),
        ('abc'.encode('utf-16-le'), r'a\.txt(, line 1)?: .*NUL characters, as of UTF-16 without a byte order mark'),
    ],
)
def test_other_encodings_are_named_with_what_to_do(tmp_path, data, message):
    path = tmp_path / 'a.txt'
    path.write_bytes(data)
    for read in (lambda own: list(read_lines(own)), read_json):
        with pytest.raises(ValueError, match=f'{message}.*save it as UTF-8') as caught:
            read(path)
        assert type(caught.value) is ValueError and '\n' not in str(caught.value)


def test_lines_end_where_lines_end(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_bytes('a\u2028b\x85c\x0bd\r\n\re\n\nf'.encode())
    assert list(read_lines(path)) == [(1, 'a\u2028b\x85c\x0bd\r\n'), (2, '\r'), (3, 'e\n'), (4, '\n'), (5, 'f')]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[' * 100_000 + ']' * 100_000, 'nested deeper than 100'),
        ('{"a":' * 100_000, 'nested deeper than 100'),
        ('[' * 101 + ']' * 101, 'nested deeper than 100'),
        ('{"a": 1, "a": 2}', "the key 'a' comes twice with different values"),
        ('[{"b": {"a": [], "a": [1]}}]', 'comes twice'),
        ('{"a"', 'Expecting'),
        ('', 'Expecting value'),
        ('1' * 5000, 'Exceeds the limit'),
    ],
)
def test_json_that_is_refused_names_the_file(tmp_path, text, message):
    path = tmp_path / 'a.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=rf'a\.json is not a whole JSON file: .*{message}') as caught:
        read_json(path)
    assert '\n' not in str(caught.value)
    path.write_text(f'{{}}\n{text}x\n')
    with pytest.raises(ValueError, match=r'a\.json, line 2 is no JSON'):
        list(read_json_lines(path))


def test_json_that_is_read():
    assert parse_json('[' * 100 + ']' * 100, 'x') is not None
    brackets = json.dumps(['[{' * 200 + '\\"' + '[' * 200, 'é"\\', {'a': '['}] * 60)
    assert parse_json(brackets, 'x') == json.loads(brackets)
    assert parse_json('{"a": 1, "a": 1}', 'x') == dict(a=1)  # nothing is lost
    assert math.isnan(parse_json('NaN', 'x'))  # whoever needs a number checks it


def test_files_that_never_end_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / 'pipe.json')
    for name, message in (('pipe.json', 'a folder or a device'), ('.', 'a folder or'), ('no.json', 'there is no file')):
        with pytest.raises(FileNotFoundError, match=message):
            read_json(tmp_path / name)
    with (tmp_path / 'large.json').open('wb') as file:
        file.truncate(2**40)  # takes no place on disk
    with pytest.raises(ValueError, match=r'large\.json: expected at most \d+ bytes, but got 1099511627776'):
        read_json(tmp_path / 'large.json')


def test_tables_have_the_lines_they_have(tmp_path):
    table = 'image,text\n\na.jpg,"two\nlines, ""quoted"""\n# not here\nb.jpg\nc.jpg,x\n'
    assert rows(tmp_path / 'a.csv', table, comment='#') == [
        (3, dict(image='a.jpg', text='two\nlines, "quoted"')),
        (6, dict(image='b.jpg', text=None)),
        (7, dict(image='c.jpg', text='x')),
    ]
    table = 'image\ttext\r\na.jpg\t"Stop, he said\r\n\r\nb.jpg\tthe end"\r\nc.jpg\t"big" dog\r\n'
    assert rows(tmp_path / 'a.tsv', table) == [
        (2, dict(image='a.jpg', text='"Stop, he said')),
        (4, dict(image='b.jpg', text='the end"')),
        (5, dict(image='c.jpg', text='"big" dog')),
    ]


@pytest.mark.parametrize(
    ('name', 'table', 'message'),
    [
        ('a.csv', 'a,b\n1,2\n1,"big" dog\n', 'line 3: .*a quotation mark within a cell is doubled'),
        ('a.csv', 'a,b\n\n1,"2\n3\n', 'line 3: unexpected end of data'),
        ('a.csv', 'a,b\n1,2,3\n', 'line 2: expected 2 cells, but got 3; a cell that holds a comma'),
        ('a.tsv', 'a\tb\n1\t2\t3\n', 'line 2: expected 2 cells, but got 3$'),
        ('a.tsv', 'a\tb\n1\n', 'line 2: expected 2 cells, but got 1'),
        ('a.csv', 'a,a\n', "line 1: expected .*, but got 'a' twice"),
        ('a.csv', '', 'line 1: expected the columns'),
        ('a.csv', '\nb\n', r"line 2: expected the columns \('a',\), but got \['b'\], without \['a'\]"),
        ('a.txt', 'a\n', r'ends with \.csv or \.tsv'),
    ],
)  # fmt: skip
def test_damaged_tables_name_the_line(tmp_path, name, table, message):
    with pytest.raises(ValueError, match=rf'{name}.*{message}'):
        rows(tmp_path / name, table, columns=('a',), whole=True)


def test_what_is_no_text_is_left_out_and_another_type_is_an_error():
    for value in (None, float('nan'), '', ' \n'):
        assert usable_text(value, 'x') == ('', EMPTY_TEXT)
    assert usable_text('nice dog \ud83d', 'x') == ('', BROKEN_TEXT)
    assert usable_text(' a \U0001f436', 'x') == (' a \U0001f436', '')
    for value in (3, 1.5, True, ['a'], {}):
        with pytest.raises(ValueError, match='a.json, row 3: expected a string, but got'):
            usable_text(value, 'a.json, row 3')
    check_texts(['\U0001f436'], 'x')
    with pytest.raises(ValueError, match=r"^x: expected whole characters, .* in '\\ud83d'"):
        check_texts(['a', '\ud83d'], 'x')


@pytest.mark.parametrize('text', ['=1+1', '+cmd|x', '-2+3', '@SUM(A1)', '\t=1', '\r=1', "'=1", "''-x", '-'])
def test_cells_that_are_formulas_become_texts(text):
    cell = csv_cell(text)
    assert cell == f"'{text}"
    written = io.StringIO()
    csv.writer(written).writerow([cell, 1])
    written.seek(0)
    assert next(csv.reader(written))[0] == cell


@pytest.mark.parametrize('value', ['-0.5', '+3', '-1e-05', '-.5', 'a=b', '', "'quoted'", "it's", -3, 0.5, None])
def test_numbers_and_other_cells_stay(value):
    assert csv_cell(value) is value


def test_a_cell_may_hold_a_long_outline(tmp_path):
    outline = '[' + ', '.join(['1234.5'] * 40_000) + ']'
    (tmp_path / 'a.csv').write_text(f'image,mask\na.png,"{outline}"\n')
    assert [row for _, row in read_table(tmp_path / 'a.csv')] == [dict(image='a.png', mask=outline)]
