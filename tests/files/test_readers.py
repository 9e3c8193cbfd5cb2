"""Every file of arrays is read at one place, and damaged ones of every kind are one line that names the file."""

import ast
import io
import mmap
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from peak_memory import memory_now, peak_since
from PIL import Image
from safetensors.torch import save_file
from scipy.io import savemat

import genseg_mm
from genseg_mm.checkpoint import check_whole, load_weights_only
from genseg_mm.datasets.instance_maps import check_index_png, read_instance_map
from genseg_mm.datasets.transforms.images import LoadImage
from genseg_mm.evaluation.sample_results import SampleResults
from genseg_mm.files.arrays import read_boundaries
from genseg_mm.inference.images import list_sources, read_image

PACKAGE = Path(genseg_mm.__file__).parent
# What decodes arrays -> the only files that may call it.
OWNERS = {
    'imread': ('loader_rows.py',),  # pictures that it has written itself
    'imdecode': (),
    'VideoCapture': ('videos.py',),
    'loadmat': (),
    'imfrombytes': ('images.py',),
    'Image.open': ('image_headers.py', 'loader_rows.py'),  # decoding alone, as a yardstick
    'h5py.File': ('instance_maps.py',),
    'np.load': (),
    'torch.load': ('checkpoint.py', 'checkpoint_folders.py'),
    'load_file': ('checkpoint.py',),
    'safe_open': ('encoding_cache.py', 'latent_probe.py', 'picture_classifier.py', 'pretrained_parts.py'),
}
IDS = np.random.default_rng(0).integers(0, 2, (24, 32))


def test_arrays_are_decoded_at_one_place():
    found = {call: set() for call in OWNERS}
    for root in (PACKAGE, PACKAGE.parent / 'tools'):
        for path in root.rglob('*.py'):
            if path.name.startswith('make_tiny_'):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    for call in OWNERS:
                        if called == call or called.endswith(f'.{call}'):
                            found[call].add(path.name)
    assert {call: sorted(names) for call, names in found.items()} == {
        call: sorted(names) for call, names in OWNERS.items()
    }


def picture(kind: str, **options) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def written(path: Path, write: Callable) -> bytes:
    write(path)
    return path.read_bytes()


def index_png(path: Path) -> None:
    Image.fromarray(IDS.astype(np.uint8)).save(path, 'PNG')


def hdf5(path: Path) -> None:
    with h5py.File(path, 'w') as file:
        file.create_dataset('dataset', data=IDS.astype(np.int16), compression='gzip')


def mat(path: Path) -> None:
    cells = np.empty((1, 2), object)
    cells[0] = [dict(Segmentation=IDS, Boundaries=IDS)] * 2
    savemat(path, dict(groundTruth=cells), do_compression=True)


def samples(path: Path) -> None:
    names = [f'{n}.jpg' for n in range(3)]
    SampleResults(
        items=names, index=np.arange(3), values=dict(iou=np.ones(3) / 2), groups=dict(kind=['a'] * 3),
        aggregates=dict(mIoU=('mean', 'iou')),
    ).save(path)  # fmt: skip


def load_picture(path: Path) -> np.ndarray:
    return LoadImage()(dict(img_path=str(path)))['img']


CASES: dict[str, tuple[Callable, Callable[[Path], bytes]]] = {
    **{
        f'LoadImage of {kind}{sorted(options)}': (load_picture, lambda _, k=kind, o=options: picture(k, **o))
        for kind, options in (
            ('JPEG', {}), ('JPEG', dict(progressive=True)), ('PNG', {}), ('WEBP', {}), ('TIFF', {}),
            ('TIFF', dict(compression='tiff_lzw')), ('BMP', {}), ('PPM', {}), ('AVIF', {}), ('JPEG2000', {}),
        )
    },
    'read_image of PNG': (lambda path: read_image(list_sources(str(path))[0][0]), lambda _: picture('PNG')),
    'read_instance_map of PNG': (read_instance_map, lambda path: written(path, index_png)),
    'check_index_png of PNG': (check_index_png, lambda path: written(path, index_png)),
    'read_instance_map of HDF5': (read_instance_map, lambda path: written(path, hdf5)),
    'read_boundaries of MAT': (read_boundaries, lambda path: written(path, mat)),
    'SampleResults of NPZ': (SampleResults.load, lambda path: written(path, samples)),
    'load_weights_only of safetensors': (
        load_weights_only,
        lambda path: written(path, lambda own: save_file(dict(weight=torch.ones(20, 3)), own)),
    ),
    'check_whole of an archive': (
        check_whole, lambda path: written(path, lambda own: torch.save(dict(w=torch.ones(20)), own))
    ),
}  # fmt: skip
SUFFIXES = dict(HDF5='.hdf5', MAT='.mat', NPZ='.npz', safetensors='.safetensors')


def test_peaks_are_seen_and_start_anew():
    start = memory_now()
    with mmap.mmap(-1, 200 << 20) as fresh:  # pages that nothing in this process has held before
        for place in range(0, len(fresh), mmap.PAGESIZE):
            fresh[place] = 1
        assert peak_since(start) > 190 << 10
    assert peak_since(memory_now()) < 50 << 10


def test_what_is_taken_from_the_heap_is_seen_too():
    """Freed blocks lie between held ones, where the heap keeps them, until they are given back."""
    blocks = [np.ones(60_000, np.uint8) for _ in range(2000)]
    del blocks[::2]
    start = memory_now()
    again = [np.ones(60_000, np.uint8) for _ in range(1000)]
    assert peak_since(start) > 45 << 10 and len(again) + len(blocks) == 2000


def test_chunks_of_a_png_that_claim_gigabytes(tmp_path):
    whole, path = picture('PNG'), tmp_path / 'x.png'
    names = ('IHDR', 'IDAT', 'IEND')
    for chunk, claimed in zip(names, ('7fffffff', '6e8a0213', '7fffffff'), strict=True):
        place = whole.index(chunk.encode()) - 4
        path.write_bytes(whole[:place] + bytes.fromhex(claimed) + whole[place + 4 :])
        start = memory_now()
        with pytest.raises(ValueError, match=r'x\.png (is cut short|cannot be decoded) \(\d+ bytes'):
            load_picture(path)
        assert peak_since(start) < 100 << 10


@pytest.mark.parametrize('case', CASES)
def test_damage_is_one_line_that_names_the_file(case, tmp_path, capfd):
    read, make = CASES[case]
    path = tmp_path / f'x{SUFFIXES.get(case.split(" ")[-1], ".bin")}'
    whole = make(path)
    start = memory_now()
    generator, refused = np.random.default_rng(len(case)), 0
    for number in range(40):
        content = bytearray(whole)
        place = int(generator.integers(0, len(content)))
        if number % 4 == 0:
            content = content[:place]
        elif number % 4 == 1:
            content[place : place + 4] = b'\xff\xff\xff\xff'
        elif number % 4 == 2:
            del content[place : place + int(generator.integers(1, 300))]
        else:
            content[place % 64 : place % 64 + 4] = generator.bytes(4)
        path.write_bytes(content)
        try:
            read(str(path))
        except (ValueError, OSError) as error:
            assert path.name in str(error) and '\n' not in str(error), error
            refused += 1
    assert refused >= (1 if case.startswith('check_index') else 8)  # that one reads headers only
    path.write_bytes(whole)
    read(str(path))
    assert peak_since(start) < 500 << 10
    assert 'Traceback' not in capfd.readouterr().err
