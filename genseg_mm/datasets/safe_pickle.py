"""Reading pickles of plain data without running anything that they ask for."""

import io
import os
import pickle
import pickletools
from typing import Any

_MEMO_OPCODES = frozenset(('PUT', 'BINPUT', 'LONG_BINPUT'))


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler that knows no class and no function at all."""

    refused: str | None = None

    def find_class(self, module: str, name: str) -> Any:
        self.refused = f'{module}.{name}'
        raise pickle.UnpicklingError(f'refused {self.refused}')


def load_plain_pickle(path: str | os.PathLike) -> Any:
    """Reads a pickle made of containers, strings, numbers, booleans and None only.

    The referring-expression files ``refs(*).p`` are Python 2 pickles that come from the web, and a
    pickle may name any function to be called while it is read. Here every such request is refused,
    so nothing of the file is ever executed. Python 2 byte strings are decoded as Latin-1.

    Args:
        path: The pickle file.

    Returns:
        The object in the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file asks for a class or a function (numpy numbers do so as well), is cut
            short or is not a pickle. The message names the file.
    """
    with open(path, 'rb') as file:
        data = file.read()
    unpickler = _PlainUnpickler(io.BytesIO(data), encoding='latin1')
    try:
        _check_sizes(data)
        return unpickler.load()
    except Exception as error:  # a broken pickle may raise any exception, says Python's manual
        if unpickler.refused is not None:
            raise ValueError(
                f'{path} is refused: it asks to load {unpickler.refused}, but a file of referring '
                'expressions needs no class or function and may be harmful. Nothing was executed; '
                'get the file from its official source, or save it again as plain lists, dicts, '
                'strings and Python numbers'
            ) from None
        raise ValueError(
            f'{path} is not a whole pickle of plain data ({len(data)} bytes): '
            f'{type(error).__name__}: {error}. It may be cut short or be another kind of file; '
            'fetch it again'
        ) from error


def _check_sizes(data: bytes) -> None:
    """Walks over the opcodes, building nothing, so that a damaged length cannot eat the memory.

    ``genops`` checks the length of every string against what is left of the file. The memo of the
    C unpickler is an array as long as its largest index, which four damaged bytes can make 64 GB.
    """
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name in _MEMO_OPCODES and argument > len(data):
            raise ValueError(f'memo index {argument} at byte {position} is beyond the file')
