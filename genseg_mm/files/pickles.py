"""Pickles of strangers: what reading one would cost, and plain data read without running what it asks for.

Python hashes the keys of dicts without asking how long that takes: a hundred bytes of tuples within tuples keep it busy
for ever, deep ones end the process, and whole numbers that are multiples of 2**61 - 1 all have one hash. Unpicklers
that run no code do not see this. Imports the standard library only.
"""

import io
import os
import pickle
import pickletools
from collections.abc import Iterator
from typing import Any, BinaryIO

from genseg_mm.files.texts import MAX_DEPTH, read_bytes

MAX_BITS = 1024  # of a number; torch.save's magic number has 77, the state of a generator 128
MAX_LONG = 1000  # numbers of more than 64 bits
_SPARE = 1_000_000
_SHARED = 20  # parts taken from the memo, written out, for one opcode
_JOINED = frozenset(
    ('TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3', 'FROZENSET', 'REDUCE', 'BUILD', 'NEWOBJ', 'NEWOBJ_EX', 'OBJ')
)
PUTS = frozenset(('PUT', 'BINPUT', 'LONG_BINPUT'))
_GETS = frozenset(('GET', 'BINGET', 'LONG_BINGET'))
_PLAIN = (1, 0)  # number of parts, depth


def opcodes_of(file: BinaryIO) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int]]:
    """Opcode, argument and position of each step of one pickle, to its end.

    ``pickletools.genops`` takes the strings of Python 2 for ASCII in protocol 0, where they may be of any bytes.

    Raises:
        ValueError: If the pickle is damaged, or has a number of more than ``MAX_BITS``, or more than ``MAX_LONG`` of
            more than 64 bits, which may all have one hash.
    """
    start, num_long = file.tell(), 0
    while code := file.read(1):
        position = file.tell() - 1 - start
        opcode = pickletools.code2op.get(code.decode('latin-1'))
        if opcode is None:
            raise ValueError(f'at byte {position}, opcode {code!r} unknown')
        if opcode.name == 'STRING':
            argument = pickletools.read_stringnl(file, decode=False, stripquotes=False)
        else:
            argument = None if opcode.arg is None else opcode.arg.reader(file)
        if isinstance(argument, int) and argument.bit_length() > 64:
            num_long += 1
            if argument.bit_length() > MAX_BITS or num_long > MAX_LONG:
                raise ValueError(f'numbers of more than 64 bits until byte {position}')
        yield opcode, argument, position
        if opcode.name == 'STOP':
            return
    raise ValueError('pickle exhausted before seeing STOP')


def check_pickle_bounds(file: BinaryIO) -> None:
    """Walks over one pickle, to behind its last byte, and builds nothing.

    Args:
        file: Where the pickle starts.

    Raises:
        ValueError: If it is damaged, or its keys would take more time or stack than its size says.
    """
    stack: list[tuple[int, int] | None] = []  # None: a mark
    memo: dict[int, tuple[int, int]] = {}
    num_shared = 0
    for number, (opcode, argument, position) in enumerate(opcodes_of(file)):
        name = opcode.name
        if name == 'MARK':
            stack.append(None)
        elif name in PUTS or name == 'MEMOIZE':
            memo[len(memo) if name == 'MEMOIZE' else argument] = (stack and stack[-1]) or _PLAIN
        elif name in _GETS or name == 'DUP':
            own = memo.get(argument) if name in _GETS else stack and stack[-1]
            stack.append(own or _PLAIN)
            num_shared += stack[-1][0]
            if num_shared > _SPARE + _SHARED * number:
                raise ValueError(f'one part in many places until byte {position}, which written out has no end')
        else:
            taken = _take(stack, opcode)
            made = _PLAIN
            if name in _JOINED:
                made = 1 + sum(own[0] for own in taken), 1 + max((own[1] for own in taken), default=0)
            if made[1] > MAX_DEPTH:
                raise ValueError(f'tuples nested deeper than {MAX_DEPTH} at byte {position}')
            stack += [made] * len(opcode.stack_after)


def _take(stack: list, opcode: pickletools.OpcodeInfo) -> list[tuple[int, int]]:
    """Removes what an opcode takes from the stack, and gives it back without the mark."""
    before, taken = opcode.stack_before, []
    count = len(before)
    if pickletools.markobject in before:
        while stack and (own := stack.pop()) is not None:
            taken.append(own)
        count = before.index(pickletools.markobject)
    taken += [stack.pop() or _PLAIN for _ in range(min(count, len(stack)))]
    return taken


# ---- plain data: stricter than what torch's checkpoints need, no class, function or tuple at all

MAX_PICKLE_BYTES = 256 * 2**20
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
        path: The pickle file, at most ``MAX_PICKLE_BYTES`` large.

    Returns:
        The object in the file, at most ``MAX_DEPTH`` deep.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file asks for a class or a function (numpy numbers do so as well), holds tuples, is nested
            without end, is cut short or is not a pickle. The message names the file.
    """
    data = read_bytes(path, MAX_PICKLE_BYTES)
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
