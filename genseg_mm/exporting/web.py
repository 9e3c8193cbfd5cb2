"""A folder that shows a colorer in a browser: the page, the model as ONNX, and what runs it there."""

import json
import tarfile
import tempfile
from pathlib import Path

from genseg_mm.exporting.files import TOLERANCE, Written, metadata_of, write_file
from genseg_mm.exporting.graphs import ColorMapGraph, ExportedGraph
from genseg_mm.files import write_text
from genseg_mm.files.fetched_packages import fetch_npm_package

PACKAGE = 'onnxruntime-web@1.30.0'
CHECKSUM = 'q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=='  # SHA-512
RUNTIME = ('ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm')
PAGE = Path(__file__).with_name('page.html')
_MAX_BYTES = 2**26  # of one file of the package


def write_page(
    graph: ExportedGraph,
    folder: Path,
    size: tuple[int, int] | None = None,
    tolerance: float = TOLERANCE,
    runtime: Path | None = None,
) -> Written:
    """Writes ``index.html``, ``model.onnx``, ``model.json`` (its metadata) and onnxruntime-web into a folder.

    Any server of files shows it, ``python -m http.server`` say; nothing else is asked for over the network.

    Args:
        graph: A colorer.
        folder: It.
        size: As of :func:`genseg_mm.exporting.files.write_file`, as is ``tolerance``.
        tolerance: See there.
        runtime: Folder that has onnxruntime-web's files (``dist/``); None: fetched by the npm client.

    Raises:
        ConnectionError: If onnxruntime-web cannot be fetched.
        FileNotFoundError: If the folder lacks one of its files.
        ValueError: If it is no colorer, or cannot be exported.
    """
    if not isinstance(graph, ColorMapGraph):
        raise ValueError(f'a page is for colorers (Gen2Seg), but got {type(graph.model).__name__}')
    if runtime is not None:
        missing = [name for name in RUNTIME if not (runtime / name).is_file()]
        if missing:
            raise FileNotFoundError(f'{runtime}: expected {" and ".join(RUNTIME)} of {PACKAGE}, but no {missing[0]}')
    folder.mkdir(parents=True, exist_ok=True)
    _write_runtime(folder, runtime)
    written = write_file(graph, folder / 'model.onnx', 'onnx', size, tolerance)
    write_text(folder / 'model.json', json.dumps(metadata_of(written.made, 'onnxruntime-web'), indent=1) + '\n')
    write_text(folder / 'index.html', PAGE.read_text(encoding='utf-8'))
    return written


def _write_runtime(folder: Path, runtime: Path | None) -> None:
    if runtime is not None:
        for name in RUNTIME:
            (folder / name).write_bytes((runtime / name).read_bytes())
        return
    with tempfile.TemporaryDirectory(prefix='genseg_web_') as temporary:
        hint = f'check the network, or give a folder with {" and ".join(RUNTIME)} (--runtime)'
        with tarfile.open(fetch_npm_package(PACKAGE, CHECKSUM, Path(temporary), hint)) as archive:
            for name in RUNTIME:
                member = archive.getmember(f'package/dist/{name}')
                if not member.isfile() or member.size > _MAX_BYTES:
                    raise ValueError(f'{PACKAGE}: {name} is no file of at most {_MAX_BYTES} bytes')
                (folder / name).write_bytes(archive.extractfile(member).read())
