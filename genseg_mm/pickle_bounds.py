"""What reading a pickle would cost, from its opcodes alone. Imports the standard library only.

Python hashes the keys of dicts without asking how long that takes: a hundred bytes of tuples within tuples keep it busy
for ever, deep ones end the process, and whole numbers that are multiples of 2**61 - 1 all have one hash. Unpicklers
that run no code do not see this.
"""

import pickletools
from collections.abc import Iterator
from typing import Any, BinaryIO

MAX_DEPTH = 100  # of tuples within one another
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
    for _ in range(min(count, len(stack))):
        taken.append(stack.pop() or _PLAIN)
    return taken
