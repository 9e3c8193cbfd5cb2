"""Text, JSON and tables: one way to read each. Imports the standard library only.

Everything that comes from a user's disk is read here: a byte order mark is understood, another encoding, a file cut
short, nesting without end or a key that comes twice is a ``ValueError`` of one line that names the file, and the line
where there is one.
"""

import codecs
import csv
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from itertools import accumulate
from reprlib import repr as short_repr
from typing import Any, BinaryIO

MAX_JSON_BYTES = 4 * 2**30  # Objects365, the largest COCO-format file that we know of, has a quarter
MAX_LINE_BYTES = 64 * 2**20
MAX_DEPTH = 100  # of brackets, in pickles of tuples; COCO's files have 5
EMPTY_TEXT, BROKEN_TEXT = 'empty texts', 'texts with half a character (a lone surrogate)'

# The four bytes of UTF-32 begin with the two of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, 'utf-8'),
    (codecs.BOM_UTF32_LE, 'utf-32-le'),
    (codecs.BOM_UTF32_BE, 'utf-32-be'),
    (codecs.BOM_UTF16_LE, 'utf-16-le'),
    (codecs.BOM_UTF16_BE, 'utf-16-be'),
)
_LINE = re.compile(r'[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+')
_SURROGATE = re.compile('[\ud800-\udfff]')
_ESCAPE = re.compile(rb'\\.', re.DOTALL)
_QUOTED = re.compile(rb'"[^"]*"')
_NO_BRACKETS = bytes(code for code in range(256) if code not in b'[]{}"')
_STEP = [(code in b'[{') - (code in b']}') for code in range(256)]
# What a spreadsheet takes for a formula; an apostrophe before it makes it text.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?', re.IGNORECASE)
_SEPARATORS = {'.csv': ',', '.tsv': '\t'}


def read_bytes(path: str | os.PathLike, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """The bytes of a regular file.

    Raises:
        FileNotFoundError: If there is no such file, or it is a folder, pipe or device, which might never end.
        ValueError: If it is larger than ``max_bytes``.
    """
    with _opened(path) as file:
        return _whole(file, path, max_bytes)


def decode_text(data: bytes, where: str, fallback: str | None = None) -> str:
    """Text of bytes: UTF-8, or what their byte order mark (UTF-8, UTF-16, UTF-32) says.

    Args:
        data: The bytes.
        where: What the message of an error starts with.
        fallback: Encoding to try for what is no UTF-8.

    Raises:
        ValueError: If they are in another encoding. NUL characters are refused, too: they are UTF-16 without a mark.
    """
    length, encoding = _mark(data)
    try:
        text = data[length:].decode(encoding)
    except UnicodeDecodeError as error:
        if fallback is None or encoding != 'utf-8':
            raise _wrong_encoding(where, error, data[length:]) from None
        try:
            text = data.decode(fallback)
        except UnicodeDecodeError:
            raise _wrong_encoding(where, error, data) from None
    if '\0' in text:
        raise ValueError(
            f'{where}: expected text, but got NUL characters, as of UTF-16 without a byte order mark: save it as UTF-8'
        )
    return text


def read_lines(path: str | os.PathLike) -> Iterator[tuple[int, str]]:
    """Lines of a text with their numbers from 1, with their ends; only \\n, \\r\\n and \\r end one.

    Raises:
        FileNotFoundError: See :func:`read_bytes`.
        ValueError: If a line is in another encoding or longer than ``MAX_LINE_BYTES``.
    """
    number = 0
    with _opened(path) as file:
        length, encoding = _mark(file.read(4))
        if encoding != 'utf-8':
            file.seek(0)
            text = decode_text(_whole(file, path, MAX_JSON_BYTES), str(path))
            yield from enumerate(_LINE.findall(text), start=1)
            return
        file.seek(length)
        while raw := file.readline(MAX_LINE_BYTES + 1):
            where = f'{path}, line {number + 1}'
            if len(raw) > MAX_LINE_BYTES:
                raise ValueError(f'{where} is longer than {MAX_LINE_BYTES} bytes: is it a text?')
            for line in _LINE.findall(decode_text(raw, where)):
                number += 1
                yield number, line


def read_json(path: str | os.PathLike, fallback: str | None = None) -> Any:
    """The content of a JSON file. NaN and Infinity are read; whoever needs a number checks it.

    Args:
        path: The file, of at most ``MAX_JSON_BYTES``.
        fallback: Encoding to try for what is no UTF-8.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is cut short, no JSON, nested deeper than ``MAX_DEPTH``, or a key comes twice with different
            values. The message names the file.
    """
    return parse_json(read_bytes(path), str(path), fallback=fallback)


def read_json_dict(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a JSON file that holds an object; see :func:`read_json`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f'{path}: expected a dict, but got {short_repr(content)}')
    return content


def parse_json(
    data: str | bytes, where: str, wrong: str = 'is not a whole JSON file', fallback: str | None = None
) -> Any:
    """The content of a JSON text; see :func:`read_json`. ``{where} {wrong}`` starts the message of an error."""
    text = data if isinstance(data, str) else decode_text(data, where, fallback)
    if text.count('[') + text.count('{') > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise ValueError(f'{where} {wrong}: it is nested deeper than {MAX_DEPTH} brackets')
    try:
        return json.loads(text, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{where} {wrong}: {error}') from error


def read_json_lines(path: str | os.PathLike) -> Iterator[tuple[int, dict]]:
    """Number and content of each line that is not blank, a JSON object each.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is something else; names it.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        row = parse_json(line, f'{path}, line {number}', 'is no JSON')
        if not isinstance(row, dict):
            raise ValueError(f'{path}, line {number}: expected a dict, but got {short_repr(row)}')
        yield number, row


def read_table(
    path: str | os.PathLike,
    columns: Sequence[str] = (),
    whole: bool = False,
    comment: str = '',
    ending: str | None = None,
) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Rows of a table with a line of names, each with the number of its first line; blank lines are none.

    In ``.csv`` a cell may stand in quotation marks, as of RFC 4180; where the line of names has no comma, semicolons or
    tabs part its cells, as of spreadsheets in other languages. A ``.tsv`` has no quoting: a quotation mark is one.

    Args:
        path: A file that ends with .csv or .tsv, unless ``ending`` says which of them it is.
        columns: Names that must be there.
        whole: Whether a row must have all cells; otherwise those that it lacks are None.
        comment: What lines to pass over start with.
        ending: '.csv' or '.tsv'.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing or comes twice, or a row has more cells or damaged quotes; names the line.
    """
    separator = _SEPARATORS.get(ending or os.path.splitext(path)[1].lower())
    if separator is None:
        raise ValueError(f'{path}: expected a table that ends with .csv or .tsv')
    rows = _csv_rows(path, comment) if separator == ',' else _tsv_rows(path, comment)
    first, names = next(rows, (1, []))
    twice = sorted({name for name in names if names.count(name) > 1})
    lacking = [name for name in columns if name not in names]
    if twice or lacking or not names:
        what = f'{twice[0]!r} twice' if twice else f'{names}, without {lacking}'
        expected = f'the columns {tuple(columns)}' if columns else 'a line of different names'
        raise ValueError(f'{path}, line {first}: expected {expected}, but got {what}')
    for number, cells in rows:
        if len(cells) > len(names) or (whole and len(cells) < len(names)):
            hint = '; a cell that holds a comma (or what else parts cells) stands in quotation marks' * (
                separator == ','
            )
            raise ValueError(f'{path}, line {number}: expected {len(names)} cells, but got {len(cells)}{hint}')
        yield number, dict(zip(names, cells + [None] * (len(names) - len(cells)), strict=True))


def read_columns(path: str | os.PathLike) -> list[str]:
    """The line of names of a ``.csv`` or ``.tsv``, whatever is below it; [] of an empty file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged.
    """
    rows = _tsv_rows(path, '') if os.path.splitext(path)[1].lower() == '.tsv' else _csv_rows(path, '')
    return next(rows, (1, []))[1]


def usable_text(value: object, where: str) -> tuple[str, str]:
    """A text to learn from or to ask with.

    One rule for every reader: null, NaN, nothing but blanks, and a lone surrogate (half of a character, which no
    tokenizer and no file takes) are no text; what is left out so is counted. Another type is a mistake.

    Returns:
        The text as it is and ``''``, or ``''`` and the reason why there is none.

    Raises:
        ValueError: If the value is of another type; names ``where``.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '', EMPTY_TEXT
    if not isinstance(value, str):
        raise ValueError(f'{where}: expected a string, but got {short_repr(value)}')
    if not value.strip():
        return '', EMPTY_TEXT
    return ('', BROKEN_TEXT) if has_lone_surrogate(value) else (value, '')


def has_lone_surrogate(text: str) -> bool:
    """Whether a text holds half of a character, such as what ``'\\ud83d'`` in a JSON file makes."""
    return _SURROGATE.search(text) is not None


def check_name(path: str | os.PathLike, what: str) -> None:
    """Raises ValueError for the name of a file that is no UTF-8: it can be in no JSON, and C libraries fail on it."""
    if has_lone_surrogate(os.fspath(path)):
        raise ValueError(f'{what} {ascii(os.fspath(path))}: expected a name in UTF-8: rename it')


def check_texts(texts: Sequence[str], where: str) -> None:
    """Raises ValueError for a text that no tokenizer takes; names ``where``."""
    for text in texts:
        if has_lone_surrogate(text):
            raise ValueError(
                f'{where}: expected whole characters, but got half of one (a lone surrogate) in {short_repr(text)}: '
                'remove it'
            )


def csv_cell(value: Any) -> Any:
    """A cell that no spreadsheet runs as a formula: a text that starts like one gets an apostrophe; numbers stay."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _opened(path: str | os.PathLike) -> BinaryIO:
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)  # to open a pipe would wait for its writer
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f'there is no file {path}') from None
    if not regular:
        raise FileNotFoundError(f'expected a file, but {path} is a folder or a device')
    return open(path, 'rb')


def _whole(file: BinaryIO, path: str | os.PathLike, max_bytes: int) -> bytes:
    size = os.fstat(file.fileno()).st_size
    if size > max_bytes:
        raise ValueError(f'{path}: expected at most {max_bytes} bytes, but got {size}')
    return file.read()


def _mark(data: bytes) -> tuple[int, str]:
    """Length of the byte order mark, and the encoding."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return len(mark), encoding
    return 0, 'utf-8'


def _wrong_encoding(where: str, error: UnicodeDecodeError, data: bytes) -> ValueError:
    line = data.count(b'\n', 0, error.start) + 1
    place = f' in line {line}' if line > 1 else ''
    name = error.encoding.upper().removesuffix('-LE').removesuffix('-BE')
    return ValueError(
        f'{where}: expected {name}, but got the byte 0x{data[error.start]:02x}{place}: save it as UTF-8, for instance '
        'with iconv -f WINDOWS-1252 -t UTF-8'
    )


def _depth(text: str) -> int:
    """How deep brackets lie in one another; those in strings do not count."""
    data = text.encode('utf-8', 'surrogatepass')
    if b'\\' in data:
        data = _ESCAPE.sub(b'', data)
    brackets = _QUOTED.sub(b'', data.translate(None, _NO_BRACKETS))
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        for key, value in pairs:
            if content[key] is not value and content[key] != value:
                raise ValueError(f'the key {short_repr(key)} comes twice with different values')
    return content


def _csv_rows(path: str | os.PathLike, comment: str) -> Iterator[tuple[int, list[str]]]:
    numbers: list[int] = []  # of the lines of one row

    def lines() -> Iterator[str]:
        for number, line in read_lines(path):
            if not (comment and line.startswith(comment)):
                numbers.append(number)
                yield line

    first = next(
        (line for _, line in read_lines(path) if line.strip() and not (comment and line.startswith(comment))), ''
    )
    separator = next((own for own in ',;\t' if own in first), ',')
    csv.field_size_limit(MAX_LINE_BYTES)  # a cell may hold the outline of an object; Python's own is 128 KiB
    reader = csv.reader(lines(), strict=True, delimiter=separator)
    while True:
        numbers.clear()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f'{path}, line {numbers[0] if numbers else 1}: {error}; a quotation mark within a cell is doubled'
            ) from error
        if row:
            yield numbers[0], row


def _tsv_rows(path: str | os.PathLike, comment: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in read_lines(path):
        line = line.rstrip('\r\n')
        if line and not (comment and line.startswith(comment)):
            yield number, line.split('\t')
