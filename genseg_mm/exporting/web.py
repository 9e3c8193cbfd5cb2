"""A folder that shows a colorer in a browser: the page, the model as ONNX, and what runs it there."""

import json
import tarfile
import tempfile
from pathlib import Path

from genseg_mm.exporting.files import TOLERANCE, Written, metadata_of, write_file
from genseg_mm.exporting.graphs import ColorMapGraph, ExportedGraph
from genseg_mm.files import check_writable, write_text
from genseg_mm.files.fetched_packages import fetch_npm_package
from genseg_mm.files.whole_files import explained, publish, scratch_folder

PACKAGE = 'onnxruntime-web@1.30.0'
CHECKSUM = 'q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=='  # SHA-512
RUNTIME = ('ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm')
METADATA_FILE = 'model.json'
FILES = (*RUNTIME, 'index.html', 'model.onnx', METADATA_FILE)  # all of a page
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
    with explained(folder), scratch_folder(folder / 'page') as place:
        _write_runtime(place, runtime)
        written = write_file(graph, place / 'model.onnx', 'onnx', size, tolerance)
        write_text(place / 'model.json', json.dumps(metadata_of(written.made, 'onnxruntime-web'), indent=1) + '\n')
        write_text(place / 'index.html', PAGE.read_text(encoding='utf-8'))
        (folder / METADATA_FILE).unlink(missing_ok=True)  # without it no model runs: not one with the other's settings
        for name in sorted(FILES, key=lambda own: own == METADATA_FILE):
            publish(place / name, folder / name)
    return written


def check_page_folder(folder: Path, force: bool) -> None:
    """Refuses a folder that no page can be written to, before anything is computed for it.

    What a kill has left of a page is written over; a whole one only by force, and only its own files.

    Raises:
        FileExistsError: If it holds a page, and not by force, or something else.
        NotADirectoryError: If it is a file.
        PermissionError: If nothing can be written there.
    """
    check_writable(folder, '--out')
    names = {own.name for own in folder.iterdir() if not own.name.endswith('.part')} if folder.is_dir() else set()
    if METADATA_FILE in names:
        if not force:
            raise FileExistsError(f'--out: {folder} holds a page already: choose another name, or --force replaces it')
    elif names - set(FILES):
        raise FileExistsError(
            f'--out: {folder} holds {", ".join(sorted(names - set(FILES))[:4])}, and no page: choose another folder'
        )


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
