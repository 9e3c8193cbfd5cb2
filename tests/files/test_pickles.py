"""Pickles of plain data are read, everything else is refused."""

import pickle
from collections import OrderedDict

import numpy as np
import pytest

from genseg_mm.files.pickles import load_plain_pickle

PLAIN = [dict(ref_id=3, sent='two words', ratio=0.5, tokens=['a', 'b'], box=[1, 2], flag=None, big=2**70)]


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data(tmp_path, protocol):
    path = tmp_path / 'plain.p'
    path.write_bytes(pickle.dumps(PLAIN, protocol=protocol))
    assert load_plain_pickle(path) == PLAIN


def test_python_2_strings(tmp_path):
    path = tmp_path / 'python2.p'
    path.write_bytes(b'\x80\x02]q\x00(U\x04caf\xe9q\x01X\x05\x00\x00\x00caf\xc3\xa9q\x02e.')
    assert load_plain_pickle(path) == ['café', 'café']
    # Protocol 0, where Python 2 wrote what is not ASCII with a backslash.
    path.write_bytes(b"(lp0\nS'caf\\xe9'\np1\naS\"it's\"\naVcaf\\u00e9\naL3L\na.")
    assert load_plain_pickle(path) == ['café', "it's", 'café', 3]


@pytest.mark.parametrize(
    ('content', 'name'),
    [
        (b"cos\nsystem\n(S'touch executed'\ntR.", 'os.system'),
        (b"(S'touch executed'\nios\nsystem\n.", 'os.system'),
        (b'\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0etouch executed\x85R.', 'os.system'),
        (b"c__builtin__\neval\n(S'1'\ntR.", '__builtin__.eval'),
        (pickle.dumps(OrderedDict(a=1), protocol=2), 'collections.OrderedDict'),
        (pickle.dumps([np.int64(3)], protocol=2), r'numpy\S*multiarray.scalar'),
    ],
)
def test_classes_and_functions_are_refused(tmp_path, monkeypatch, content, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'refs.p'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf'refs\.p is refused: it asks to load {name}, '):
        load_plain_pickle(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ['refs.p']


def test_truncated_at_every_length(tmp_path):
    content, path = pickle.dumps(PLAIN, protocol=2), tmp_path / 'cut.p'
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=rf'cut\.p is not a whole pickle of plain data \({length} bytes\)'):
            load_plain_pickle(path)


def test_damaged_bytes_never_raise_anything_else(tmp_path):
    content, path = pickle.dumps(PLAIN * 3, protocol=2), tmp_path / 'damaged.p'
    rng, num_errors = np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(content)
        for position in rng.integers(len(content), size=rng.integers(1, 5)):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_plain_pickle(path)
        except ValueError as error:
            num_errors += 1
            assert str(path) in str(error)
    assert num_errors > 100


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        # An array of 32 GB in CPython
        (b'\x80\x02]r\xff\xff\xff\x7f.', 'memo index 2147483647 at byte 3 is beyond the file'),
        (b'\x80\x04\x8e\x00\x00\x00\x00\x00\x01\x00\x00abc.', 'expected 1099511627776 bytes'),
        (b'\x80\x02X\xff\xff\xff\x7fabc.', 'expected 2147483647 bytes'),
    ],
)
def test_huge_lengths_are_refused_before_memory_is_taken(tmp_path, content, reason):
    path = tmp_path / 'huge.p'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf'huge\.p is not a whole pickle .*{reason}'):
        load_plain_pickle(path)


def test_no_pickle_at_all(tmp_path):
    path = tmp_path / 'page.p'
    path.write_text('<!DOCTYPE html><html>404</html>')
    with pytest.raises(ValueError, match=r'page\.p is not a whole pickle of plain data'):
        load_plain_pickle(path)
    with pytest.raises(FileNotFoundError):
        load_plain_pickle(tmp_path / 'absent.p')


def doubling(start: bytes, join: bytes) -> bytes:
    """45 containers, each of which holds the one before twice."""
    return (
        start
        + b'q\x00'
        + b''.join(join.replace(b'?', bytes([number])) + b'q' + bytes([number + 1]) for number in range(45))
    )


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'\x80\x02' + doubling(b')', b'h?h?\x86') + b'}h\x2dK\x01s.', 'a tuple or frozenset at byte 2'),
        (b'\x80\x02]' + doubling(b']', b'(h?h?l') + b'.', 'written out has no end'),
        (b'})' + b'\x85' * 200_000 + b'K\x01s.', 'a tuple or frozenset at byte 1'),
        (b']' * 20_000 + b'a' * 19_999 + b'.', 'nested deeper than 100'),
        (b'\x80\x02]q\x00h\x00a.', 'holds itself'),
        (b']' * 1_000_000 + b'.', 'far more containers than content'),
        (b'\x80\x02]\x8b\xe8\x03\x00\x00' + b'\x7f' * 1000 + b'a.', 'numbers of more than 64 bits until byte 3'),
        (
            b'\x80\x02}('
            + b''.join(b'\x8a\x0a' + (own * (2**61 - 1)).to_bytes(10, 'little') + b'N' for own in range(10**4))
            + b'u.',
            'numbers of more than 64 bits',
        ),
    ],
)
def test_little_files_that_would_never_end_are_refused(tmp_path, content, reason):
    path = tmp_path / 'refs.p'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf'refs\.p is not a whole pickle of plain data .*{reason}') as caught:
        load_plain_pickle(path)
    assert '\n' not in str(caught.value)
