"""What works on this machine, and what to type for the rest: the findings of ``genseg doctor``.

Only the standard library is imported at first, since anything else may be what is missing.
"""

import importlib
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import genseg_mm
from genseg_mm.command import shipped_root

OK, MISSING, NOTE = 'ok', 'missing', 'note'
SMALLEST_IOU = 0.6  # of the masks that the shipped model makes of the scene below; 0.90 on the machine of the tests
NEEDED = (
    'torch', 'diffusers', 'transformers', 'accelerate', 'numba', 'numpy', 'PIL', 'pycocotools', 'safetensors', 'scipy',
)  # fmt: skip
_DISTRIBUTIONS = dict(PIL='pillow', cv2='opencv-python-headless', tensorboard='tensorboard')
# module -> distributions that have it, OneDL's first; what of ours asks for it
OPENMMLAB = {
    'mmengine': (('onedl-mmengine', 'mmengine', 'mmengine-lite'), 'everything'),
    'mmcv': (('onedl-mmcv', 'mmcv', 'mmcv-lite', 'mmcv-full'), 'every data pipeline'),
    'mmseg': (('onedl-mmsegmentation', 'mmsegmentation'), 'every model'),
    'mmdet': (('onedl-mmdetection', 'mmdet'), 'configs that name its parts'),
}
# module -> what of ours asks for it, and its extra
OPTIONAL = {
    'peft': ('LoRA', 'mm'),
    'h5py': ('Hypersim', 'mm'),
    'matplotlib': ('plots', 'mm'),
    'sentencepiece': ("T5's and Gemma's tokenizers", 'mm'),
    'gradio': ('genseg app', 'app'),
    'tensorboard': ('curves of trainings', 'tensorboard'),
    'shtab': ('genseg completion', 'completion'),
    'pyarrow': ('own tables in parquet', 'parquet'),
    'datasets': ("rows of Hugging Face's datasets", 'huggingface'),
    'onnxruntime': ('genseg export --format onnx', 'onnx'),
    'onnxscript': ('genseg export --format onnx', 'onnx'),
}
# data set -> paths below the data root, and the config that `genseg verify` reads; its first lines say the layout
DATA = {
    'COCO 2017': (
        'coco/annotations/instances_train2017.json coco/annotations/instances_val2017.json coco/train2017 coco/val2017',
        '_base_/datasets/coco_instance_224',
    ),
    'COCO captions': ('coco/annotations/captions_train2014.json coco/train2014', '_base_/datasets/refcoco'),
    'RefCOCO': ('coco/refcoco/instances.json coco/refcoco/refs(unc).p coco/train2014', '_base_/datasets/refcoco'),
    'RefCOCO+': ('coco/refcoco+/instances.json coco/refcoco+/refs(unc).p coco/train2014', '_base_/datasets/refcoco+'),
    'RefCOCOg': ('coco/refcocog/instances.json coco/refcocog/refs(umd).p coco/train2014', '_base_/datasets/refcocog'),
    'gRefCOCO': (
        'coco/grefcoco/instances.json coco/grefcoco/grefs(unc).json coco/train2014', '_base_/benchmarks/grefcoco',
    ),
    'ReasonSeg': ('ReasonSeg/train ReasonSeg/val ReasonSeg/test', '_base_/datasets/reasonseg'),
    'Hypersim': ('hypersim hypersim/index.csv', '_base_/datasets/hypersim_vkitti2_224'),
    'Virtual KITTI 2': ('vkitti2', '_base_/datasets/hypersim_vkitti2_224'),
    'ClevrTex': ('clevrtex', '_base_/datasets/clevrtex_224'),
    'DRAM': ('DRAM_processed', '_base_/benchmarks/dram'),
    'EgoHOS': ('egohos', '_base_/benchmarks/egohos'),
    'iShape': ('ishape_dataset', '_base_/benchmarks/ishape'),
    'PIDRay': ('pidray', '_base_/benchmarks/pidray'),
    'BSDS500': ('BSDS500', '_base_/benchmarks/bsds500'),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """A line of the report.

    Attributes:
        group: 'environment', 'machine', 'weights', 'data', 'optional' or 'result'.
        name: What was looked at.
        state: 'ok'; 'missing', where something has to be done; 'note', where nothing has to.
        found: What there is.
        remedy: What to type.
        core: Whether nothing works without it.
    """

    group: str
    name: str
    state: str
    found: str
    remedy: str = ''
    core: bool = False


def examine() -> Iterator[Finding]:
    """All findings, each as soon as it is known; the last one, of a prediction, only where what it needs is there."""
    whole = True
    for part in (environment, machine, weights, data, optional):
        for own in part():
            whole &= not own.core or own.state != MISSING
            yield own
    if whole:
        yield prediction()


def works(findings: list[Finding]) -> bool:
    """Whether the core works."""
    return all(own.state != MISSING for own in findings if own.core)


# ---- the environment


def environment() -> Iterator[Finding]:
    """Python and the packages that nothing works without, and whose OpenMMLab this is."""
    version = platform.python_version()
    good = sys.version_info >= (3, 11)
    yield Finding(
        'environment', 'python', OK if good else MISSING, version, '' if good else 'take Python >= 3.11', True
    )
    wishes = requirements()
    for module in NEEDED:
        yield _package(module, wishes)
    for module, (names, needed_by) in OPENMMLAB.items():
        yield _openmmlab(module, names, needed_by)
    yield from _parts_of_others()


def requirements() -> dict[str, str]:
    """What the installed package asks for, by distribution: ``{'torch': '>=2.6'}``; empty where it is not installed."""
    try:
        lines = metadata.requires('genseg_mm') or []
    except metadata.PackageNotFoundError:
        return {}
    plain = [line for line in lines if 'extra ==' not in line]
    found = [re.match(r'([\w.-]+)\s*(.*)', line.partition(';')[0]) for line in plain]
    return {one[1].lower(): one[2].strip() for one in found if one}


def _package(module: str, wishes: dict[str, str]) -> Finding:
    name = _DISTRIBUTIONS.get(module, module)
    wish = wishes.get(name, '')
    error = _import_error(module)
    remedy = f"pip install '{name}{wish}'"
    if error:
        return Finding('environment', name, MISSING, error, remedy, True)
    version = _version([name]) or str(getattr(sys.modules[module], '__version__', 'of unknown version'))
    if wish and not _meets(version, wish):
        return Finding('environment', name, MISSING, f'{version}, but {wish} is needed', f'{remedy} --upgrade', True)
    return Finding('environment', name, OK, version, '', True)


def _openmmlab(module: str, names: tuple[str, ...], needed_by: str) -> Finding:
    error, core = _import_error(module), module != 'mmdet'
    there = next((name for name in names if _version([name])), None)
    said = f'{there} {_version([there])}' if there else 'no distribution of it'
    if error:
        said = error if there is None else f'{said} cannot be imported: {error}'
        again = f'--force-reinstall --no-deps {there}' if there else names[0]
        remedy = f'pip install {again}'
        return Finding('environment', module, MISSING if core else NOTE, f'{said}; {needed_by} needs it', remedy, core)
    kind = 'OneDL' if there and there.startswith('onedl-') else 'upstream'
    return Finding('environment', module, OK, f'{said} ({kind})', '', core)


def _parts_of_others() -> Iterator[Finding]:
    """mmcv's compiled operators, and what only they and packages that mmseg does not ask pip for let one import."""
    error = _import_error('mmcv.ops')
    if not error:
        yield Finding('environment', 'mmcv.ops', OK, 'compiled')
        for module in ('mmseg.models', 'mmdet.models'):
            error = _import_error(module)
            missing = re.search(r"No module named '(\w+)'", error or '')
            remedy = f'pip install {missing[1]}' if missing else ''
            said = f'cannot be imported: {error}; configs that name its parts need it' if error else 'can be imported'
            yield Finding('environment', module, NOTE if error else OK, said, remedy)
        return
    yield Finding(
        'environment', 'mmcv.ops', NOTE, f'not compiled ({error}): models and transforms of mmseg and mmdet need them, '
        'nothing else', 'bash tools/setup_env.sh, in a checkout',
    )  # fmt: skip


def _import_error(module: str) -> str | None:
    """Why a module cannot be imported, in one line; None if it can."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return 'not installed' if error.name == module.partition('.')[0] else _one_line(error)
    except Exception as error:  # a package may raise whatever it likes: versions that do not go together
        return _one_line(error)
    return None


def _one_line(error: BaseException) -> str:
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else f'{text[:200]} ...'


def _version(names: list[str]) -> str | None:
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _meets(version: str, wish: str) -> bool:
    from pip._vendor.packaging.specifiers import SpecifierSet

    return SpecifierSet(wish).contains(version, prereleases=True)


# ---- the machine


def machine() -> Iterator[Finding]:
    """Cores, memory, cards, disk."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    yield Finding('machine', 'system', OK, f'{platform.system()} {platform.machine()}, {cores} cores')
    memory = _memory()
    if memory:
        yield Finding('machine', 'memory', OK, f'{memory[0] / 2**30:.1f} GiB, {memory[1] / 2**30:.1f} free')
    for name, folder in (('working folder', Path.cwd()), ('cache', cache_folder())):
        yield _disk(name, folder)
    if 'torch' in sys.modules:
        yield from _cards(sys.modules['torch'])


def cache_folder() -> Path:
    """Where prepared objects, fetched encoders and compiled wheels lie."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'genseg_mm'


def _memory() -> tuple[int, int] | None:
    """Bytes in all and free, on Linux."""
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
    except OSError:
        return None
    facts = {line.partition(':')[0]: int(line.split()[1]) * 1024 for line in lines if line.split()[1:]}
    return facts.get('MemTotal', 0), facts.get('MemAvailable', 0)


def _disk(name: str, folder: Path) -> Finding:
    there = next(own for own in (folder, *folder.parents) if own.exists())
    free = shutil.disk_usage(there).free
    said = f'{folder}, {free / 2**30:.1f} GiB free'
    if os.access(there, os.W_OK):
        return Finding('machine', name, OK, said)
    remedy = 'work in a folder of your own' if name != 'cache' else 'export XDG_CACHE_HOME=FOLDER'
    return Finding('machine', name, NOTE, f'{said}, not writable', remedy)


def _cards(torch: Any) -> Iterator[Finding]:
    """GPUs and what they compute in; without any, what the CPU does."""
    built = f'CUDA {torch.version.cuda}' if torch.version.cuda else 'no CUDA'
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for number in range(count):
        facts = torch.cuda.get_device_properties(number)
        bf16 = 'bfloat16' if facts.major >= 8 else 'no bfloat16'
        said = f'{facts.name}, {facts.total_memory / 2**30:.0f} GiB, compute {facts.major}.{facts.minor}, {bf16}'
        yield Finding('machine', f'GPU {number}', OK, f'{said}, {built}')
    if count:
        yield Finding(
            'machine', 'checks', NOTE, 'what this card trains, and how fast', 'genseg analysis_tools/gpu_check.py'
        )
        return
    if getattr(torch.backends, 'mps', None) and torch.backends.mps.is_available():
        yield Finding('machine', 'GPU', OK, "Apple's, through MPS (not tested)")
        return
    remedy = '' if torch.version.cuda else 'with an NVIDIA card: install torch with CUDA (pytorch.org)'
    yield Finding('machine', 'GPU', NOTE, f'none that torch sees ({built}): *_tiny configs run on the CPU', remedy)


# ---- weights and data


def weights() -> Iterator[Finding]:
    """The shipped files, each whole or not."""
    folder = Path(genseg_mm.__file__).parent / 'weights'
    files = sorted(folder.glob('*.safetensors'))
    remedy = 'pip install --force-reinstall --no-deps genseg_mm'
    if not files:
        yield Finding('weights', 'shipped models', MISSING, f'none in {folder}', remedy, True)
        return
    if _import_error('genseg_mm.checkpoint'):
        yield Finding('weights', 'shipped models', NOTE, f'{len(files)} files, not read without torch')
        return
    from genseg_mm.checkpoint import check_whole

    for path in files:
        try:
            check_whole(str(path))
        except (ValueError, OSError) as error:
            yield Finding('weights', path.name, MISSING, _one_line(error), remedy, True)
    size = sum(path.stat().st_size for path in files) / 2**20
    yield Finding('weights', 'shipped models', OK, f'{len(files)} files, {size:.0f} MiB')


def data() -> Iterator[Finding]:
    """Which data sets lie where configs look for them."""
    root = Path(os.environ.get('GENSEG_DATA', 'data'))
    said = f'{root}' if 'GENSEG_DATA' in os.environ else f'{root} (GENSEG_DATA is not set)'
    if not root.is_dir():
        yield Finding('data', 'data root', NOTE, f'{said} is no folder', 'export GENSEG_DATA=FOLDER')
    else:
        yield Finding('data', 'data root', OK, said)
    absent = []
    for name, (paths, config) in DATA.items():
        lacking = [path for path in paths.split() if not (root / path).exists()]
        if not lacking:
            yield Finding('data', name, OK, 'there', f'genseg verify {config}')
        elif len(lacking) < len(paths.split()) and any((root / path).exists() for path in _telling(paths)):
            layout = shipped_root() / 'configs' / f'{config}.py'
            yield Finding('data', name, MISSING, f'lacks {", ".join(lacking)}', f'see the layout in {layout}')
        else:
            absent.append(name)
    if absent:
        layouts = shipped_root() / 'configs/_base_'
        yield Finding('data', 'not there', NOTE, ', '.join(absent), f'layouts: {layouts}/{{datasets,benchmarks}}/*.py')


def _telling(paths: str) -> list[str]:
    """Paths that no other data set has: a half of one is there only if one of them is."""
    shared = [path for other, _ in DATA.values() for path in other.split()]
    return [path for path in paths.split() if shared.count(path) == 1]


# ---- what goes beyond


def optional() -> Iterator[Finding]:
    """Packages and files that parts of the project ask for."""
    for module, (purpose, extra) in OPTIONAL.items():
        name = _DISTRIBUTIONS.get(module, module)
        # By its distribution: the name of a module may be that of a folder.
        error = None if _version([name]) else 'not installed'
        said = error or _version([name])
        remedy = f"pip install 'genseg_mm[{extra}]'" if extra != 'mm' else f'pip install {name}'
        yield Finding('optional', name, NOTE if error else OK, f'{said} ({purpose})', remedy if error else '')
    yield from _prepared()


def _prepared() -> Iterator[Finding]:
    from genseg_mm.files.package_folders import SENTENCE_ENCODER, place_of_package

    place = place_of_package(SENTENCE_ENCODER)
    yield Finding(
        'optional', 'MiniLM', OK if place else NOTE, f'{place or "not fetched"} (GenMask reads sentences with it)',
        '' if place else 'genseg prepare objects --sentence-encoder',
    )  # fmt: skip
    if not _import_error('genseg_mm.datasets.object_bank'):
        from genseg_mm.datasets.object_bank import default_bank

        there = default_bank().is_file()
        yield Finding(
            'optional', 'objects', OK if there else NOTE, f'{default_bank() if there else "not fetched"} (scenes of '
            'recognisable objects)', '' if there else 'genseg prepare objects',
        )  # fmt: skip
    home = Path(os.environ.get('HF_HOME') or '~/.cache/huggingface')
    hub = Path(os.path.expanduser(os.environ.get('HF_HUB_CACHE') or home / 'hub'))
    names = {path.stem for path in (Path(genseg_mm.__file__).parent / 'hub_layouts/released').glob('*.json')}
    there = sorted(name for name in names if (hub / f'models--{name.replace("__", "--")}').is_dir())
    said = ', '.join(name.replace('__', '/') for name in there) or f'none of {len(names)} in {hub}'
    yield Finding('optional', 'released models', OK if there else NOTE, said, '' if there else 'hf download OWNER/NAME')


# ---- whether it works


def prediction() -> Finding:
    """A shipped model finds the objects of a drawn scene by a point on each."""
    start = time.monotonic()
    try:
        iou = _iou_of_a_scene()
    except Exception as error:  # whatever it is, it does not work then
        return Finding('result', 'prediction', MISSING, f'{type(error).__name__}: {_one_line(error)}', '', True)
    said = f'a shipped model finds the objects of a drawn scene, mIoU {100 * iou:.0f}, {time.monotonic() - start:.1f} s'
    state = OK if iou >= SMALLEST_IOU else MISSING
    return Finding('result', 'prediction', state, said, '' if state == OK else 'report it, with --json', True)


def _iou_of_a_scene() -> float:
    import logging

    import numpy as np

    from genseg_mm.datasets import ShapesDataset
    from genseg_mm.inferencers import GenSegInferencer

    logging.disable(logging.WARNING)
    try:
        scene = ShapesDataset(num_scenes=1, task='instance', split='test').scene(0)
        ids = [own for own in np.unique(scene.ids) if own > 0]
        masks = [scene.ids == own for own in ids]
        points = [[float(x) for x in np.argwhere(mask)[mask.sum() // 2][::-1]] for mask in masks]
        made = GenSegInferencer('gen2seg_unet_shapes_long_tiny')(scene.image, points=points)['predictions'][0]['masks']
    finally:
        logging.disable(logging.NOTSET)
    pairs = zip(np.asarray(made), masks, strict=True)
    return float(np.mean([(own & true).sum() / (own | true).sum() for own, true in pairs]))
