"""Tensors written to safetensors files, whole or not at all."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from genseg_mm.files.whole_files import explained, publish, scratch_folder

if TYPE_CHECKING:
    from torch import Tensor


def write_tensors(
    path: str | os.PathLike,
    tensors: 'Mapping[str, Tensor]',
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a safetensors file, as open to others as any file of the user's.

    safetensors writes to a file of a random name beside it first, which only its owner may read, and which stays for
    ever if the process is killed. Here that happens in a hidden folder, which the next attempt removes.

    Args:
        path: The file; its folder is made.
        tensors: By name; contiguous, on the CPU, none of them sharing memory.
        metadata: Of the file.

    Raises:
        WriteError: If it cannot be written.
    """
    from safetensors.torch import save_file

    path = Path(path)
    needed = sum(own.nbytes for own in tensors.values())
    with explained(path, needed=lambda: needed), scratch_folder(path) as folder:
        file = folder / path.name
        file.touch()
        mode = file.stat().st_mode
        save_file(dict(tensors), file, dict(metadata) if metadata else None)
        file.chmod(mode)
        publish(file, path)
