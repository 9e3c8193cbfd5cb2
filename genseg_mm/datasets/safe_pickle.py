"""Reading pickles of plain data without running anything that they ask for.

Stricter than what torch's checkpoints need (:mod:`genseg_mm.pickle_bounds`): no class, function or tuple at all.
"""

import io
import os
import pickle
from typing import Any

from genseg_mm.files import MAX_DEPTH, read_bytes
from genseg_mm.pickle_bounds import PUTS, opcodes_of

MAX_BYTES = 256 * 2**20
MAX_OPCODES = 40_000_000
_ASKS_OPCODES = frozenset(('GLOBAL', 'STACK_GLOBAL', 'INST', 'EXT1', 'EXT2', 'EXT4', 'PERSID', 'BINPERSID'))
# Hashing one of a few nested pairs of the same two takes longer than the universe is old, and Python does not ask.
_HASHED_OPCODES = frozenset(('TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3', 'EMPTY_TUPLE', 'FROZENSET'))
_CONTAINER_OPCODES = frozenset(('EMPTY_LIST', 'EMPTY_DICT', 'EMPTY_SET', 'LIST', 'DICT'))
_BYTES_PER_CONTAINER = 216
_GROWTH = 20  # bytes in memory for one of the file; refs(unc).p has 11
_SLACK = 2**24


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler that knows no class and no function at all."""

    refused: str | None = None

    def find_class(self, module: str, name: str) -> Any:
        self.refused = f'{module}.{name}'
        raise pickle.UnpicklingError(f'refused {self.refused}')


def load_plain_pickle(path: str | os.PathLike) -> Any:
    """Reads a pickle made of lists, dicts, sets, strings, numbers, booleans and None only.

    The referring-expression files ``refs(*).p`` are Python 2 pickles that come from the web, and a
    pickle may name any function to be called while it is read. Here every such request is refused,
    so nothing of the file is ever executed. Tuples and frozensets are refused as well: as keys, a
    hundred bytes of them keep Python busy for ever. Python 2 byte strings are decoded as Latin-1.

    Args:
        path: The pickle file, at most ``MAX_BYTES`` large.

    Returns:
        The object in the file, at most ``genseg_mm.files.MAX_DEPTH`` deep.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file asks for a class or a function (numpy numbers do so as well), holds tuples, is nested
            without end, is cut short or is not a pickle. The message names the file.
    """
    data = read_bytes(path, MAX_BYTES)
    unpickler = _PlainUnpickler(io.BytesIO(data), encoding='latin1')
    try:
        _check_opcodes(data)
        content = unpickler.load()
        _check_tree(content, _SLACK + len(data))
        return content
    except Exception as error:  # a broken pickle may raise any exception, says Python's manual
        if unpickler.refused is not None:
            raise ValueError(
                f'{path} is refused: it asks to load {unpickler.refused}, but a file of referring '
                'expressions needs no class or function and may be harmful. Nothing was executed; '
                'get the file from its official source, or save it again as plain lists, dicts, '
                'strings and Python numbers'
            ) from None
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:300]
        raise ValueError(
            f'{path} is not a whole pickle of plain data ({len(data)} bytes): {reason}. It may be '
            'cut short or be another kind of file; fetch it again'
        ) from error


def _check_opcodes(data: bytes) -> None:
    """Walks over the opcodes, building nothing, so that a hostile or damaged file can eat neither memory nor time.

    ``opcodes_of`` checks numbers, and the length of every string against what is left of the file. The memo of the
    C unpickler is an array as long as its largest index, which four damaged bytes can make 64 GB.
    Everything before the first request for a class is checked; there the unpickler stops.
    """
    num_containers = 0
    for number, (opcode, argument, position) in enumerate(opcodes_of(io.BytesIO(data))):
        name = opcode.name
        if name in PUTS and argument > len(data):
            raise ValueError(f'memo index {argument} at byte {position} is beyond the file')
        if name in _ASKS_OPCODES:
            return
        if name in _HASHED_OPCODES:
            raise ValueError(
                f'a tuple or frozenset at byte {position}, but references are lists and dicts; save them as lists'
            )
        num_containers += name in _CONTAINER_OPCODES
        if number > MAX_OPCODES or num_containers * _BYTES_PER_CONTAINER > _SLACK + _GROWTH * len(data):
            raise ValueError(f'far more containers than content until byte {position}')


def _check_tree(content: Any, max_size: int) -> None:
    """Refuses what holds itself, lies too deep, or is written out much longer than the file (lists that double)."""
    sizes: dict[int, int] = {}  # of containers that are done, 0 while they are open
    stack = [(content, False)]
    depth = 0
    while stack:
        own, is_done = stack.pop()
        if type(own) not in (list, dict, set):
            if not isinstance(own, (str, bytes, bytearray, int, float, type(None))):
                raise ValueError(f'a {type(own).__name__}, which is no plain data')
            continue
        children = [*own, *own.values()] if type(own) is dict else own
        inner = [child for child in children if type(child) in (list, dict, set)]
        if is_done:
            depth -= 1
            sizes[id(own)] = 1 + len(children) + sum(sizes[id(child)] for child in inner)
            if sizes[id(own)] > max_size:
                raise ValueError('one part in many places, which written out has no end')
            continue
        if sizes.get(id(own), -1) > 0:
            continue
        if id(own) in sizes:
            raise ValueError('a list or dict that holds itself')
        sizes[id(own)] = 0
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f'lists or dicts nested deeper than {MAX_DEPTH}')
        stack.append((own, True))
        stack += [(child, False) for child in inner]
