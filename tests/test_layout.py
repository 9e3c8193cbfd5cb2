"""Guards of the house: the map of CONTRIBUTING.md, who imports whom, names resolvable by string, a light package."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'genseg_mm'

# Packages of others that no room, or a room, may import at any depth of its files; who imports whom of ours stands in
# CONTRIBUTING.md. The mathematics are torch's alone.
EVERYWHERE = ('mmdet.models', 'mmseg.models', 'torchvision', 'configs')
HEAVY = ('diffusers', 'transformers')
FORBIDDEN = {
    'functional': ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'numpy', 'scipy', 'cv2'),
    'leaderboard': ('mmengine', 'torch', 'cv2'),
    **dict.fromkeys(('datasets', 'evaluation', 'hooks', 'inference', 'inferencers.py'), HEAVY),
}
# file -> what it may import although its room may not, and why
EXCEPTIONS = {
    'functional/color_grouping.py': ('scipy',),  # labels connected components five times as fast as torch
    'functional/similarity_loops.py': ('numpy',),  # whose arrays Numba's loops work on
}


def table_of(heading: str) -> list[list[str]]:
    """Cells of the rows of the table below a heading of CONTRIBUTING.md."""
    section = (ROOT / 'CONTRIBUTING.md').read_text().split(f'## {heading}\n')[1].split('\n## ')[0]
    rows = [line for line in section.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in row.strip('|').split('|')] for row in rows[2:]]


def quoted(cell: str) -> list[str]:
    """What stands in backticks, several names of one folder in braces written out."""
    return [
        before + name + after
        for before, names, after in re.findall(r'`([^`{]*)\{?([^`{}]*)\}?([^`{}]*)`', cell)
        for name in names.split(',')
    ]


def our_imports(path: Path) -> set[str]:
    """Rooms of the package that a file imports."""
    names = [name.split('.')[1] for name in imports_of(path) if name.startswith('genseg_mm.') and '__' not in name]
    return {f'{name}/' if (PACKAGE / name).is_dir() else f'{name}.py' for name in names}


def files_of(room: str) -> list[Path]:
    place = PACKAGE / room
    return sorted(place.rglob('*.py')) if place.is_dir() else [place]


def test_the_map_of_contributing_is_that_of_the_tree():
    """Every room, every file of it, and what it imports of ours: only rooms that stand above it."""
    rows = {quoted(room)[0]: (what, imports) for room, what, imports in table_of('Rooms of `genseg_mm/`')}
    places = [path for path in PACKAGE.iterdir() if path.suffix == '.py' or any(path.glob('*.py'))]
    names = {f'{path.name}/' if path.is_dir() else path.name for path in places if path.name != '__init__.py'}
    assert set(rows) == names
    drawn, found = {}, {}
    for room, (what, imports) in rows.items():
        own = [path.relative_to(PACKAGE / room) for path in files_of(room)] if room.endswith('/') else []
        found[room] = (
            sorted(str(path.with_suffix('')) for path in own if path.name != '__init__.py'),
            sorted({other for path in files_of(room) for other in our_imports(path)} - {room}),
        )
        drawn[room] = sorted(quoted(what)) if own else [], sorted(quoted(imports))
    assert drawn == found
    order = list(rows)
    assert [(room, other) for room in order for other in found[room][1] if order.index(other) > order.index(room)] == []


def test_the_places_of_contributing_exist():
    cells = [
        cell for heading in ('Where a new thing goes', 'How to run what') for row in table_of(heading) for cell in row
    ]
    words = [word for cell in cells for text in quoted(cell) for word in text.split()]
    paths = [word for word in words if re.fullmatch(r'[\w./-]+/[\w./-]*|\w+\.(py|sh|md)', word) and '...' not in word]
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path.partition('::')[0]).exists()] == []


def imports_of(path: Path) -> list[str]:
    """Every module that a file imports, inside functions too."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            names += [f'{node.module}.{alias.name}' for alias in node.names]
    return names


def test_rooms_import_only_what_they_may_of_others():
    offences = []
    for path in PACKAGE.rglob('*.py'):
        room = path.relative_to(PACKAGE).parts[0]
        forbidden = FORBIDDEN.get(room, ()) + EVERYWHERE
        for name in imports_of(path):
            allowed = EXCEPTIONS.get(path.relative_to(PACKAGE).as_posix(), ())
            if any(name == bad or name.startswith(f'{bad}.') for bad in forbidden if bad not in allowed):
                offences.append(f'{path.relative_to(ROOT)} imports {name}')
    assert offences == []


def test_the_guard_sees_an_offence(tmp_path):
    file = tmp_path / 'a.py'
    file.write_text('def f():\n    from mmdet.models import losses\n')
    assert imports_of(file) == ['mmdet.models.losses']


def run_fresh(code: str) -> list[str]:
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd='/')
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.strip().splitlines()


def test_importing_the_package_is_light_and_names_resolve_with_nothing_imported():
    """MMEngine's optimizers, which hooks and models need, know Adafactor without transformers."""
    heavy = ('numba', 'diffusers', 'transformers', 'peft', 'mmdet.models', 'mmseg.models', 'cv2')
    # In one process, those that may import least first.
    rooms = {
        'genseg_mm': heavy,
        'genseg_mm.datasets': heavy[:6],
        'genseg_mm.evaluation': heavy[:6],
        'genseg_mm.hooks': heavy[:6],
        'genseg_mm.models': heavy[:6],
        'genseg_mm.launch.runner': heavy[:6],
    }
    lookups = [(registry, name) for registry, names in NAMES.items() for name in names.split()]
    code = (
        'import contextlib, importlib, io, os, sys\n'
        'from mmengine import registry\n'
        'import torch\n'
        'if os.fork() == 0:\n'
        f'    print([n for r, n in {lookups} if getattr(registry, r).get("genseg_mm." + n) is None], flush=True)\n'
        '    os._exit(0)\n'
        'os.wait()\n'
        'found = []\n'
        f'for room, unwanted in {rooms}.items():\n'
        '    importlib.import_module(room)\n'
        '    found += [(room, name) for name in unwanted if name in sys.modules]\n'
        "settings = dict(type='Adafactor', params=[torch.zeros(2)], lr=0.25, relative_step=False)\n"
        'made = registry.OPTIMIZERS.build(settings)\n'
        'import transformers\n'
        "is_it = type(made) is transformers.Adafactor and made.defaults['lr'] == 0.25\n"
        'with contextlib.redirect_stdout(io.StringIO()) as said:\n'
        '    import mmdet.datasets, mmseg.datasets\n'  # which say that OneDL is missing
        'print(found, is_it, repr(said.getvalue()))'
    )
    lines = run_fresh(code)
    assert lines[0] == '[]' and lines[-1] == "[] True ''"


NAMES = {
    'MODELS': 'GenMask DiTBackbone GenerativeMaskHead LatentCodec LatentProbe T5PromptEncoder Gen2Seg MAEColorer '
    'TextPromptEncoder QwenVLPromptEncoder DescriptionWriter DiTColorer '
    'SDColorer UNetColorer InstanceColoringHead InstanceColoringLoss GenSegDataPreprocessor PatchCodec ControlMap',
    'DATASETS': 'ShapesDataset RefCOCODataset MixedDataset CocoInstanceDataset ClevrTexDataset '
    'HypersimDataset VirtualKITTI2Dataset DRAMDataset EgoHOSDataset IShapeDataset PIDRayDataset '
    'CocoCaptionsDataset ImageTextDataset SeededDataset GRefCOCODataset ReasonSegDataset BSDS500Dataset '
    'ObjectScenesDataset InstanceFolderDataset ReferringDataset',
    'DATA_SAMPLERS': 'RatioInfiniteSampler VisitSampler',
    'TRANSFORMS': 'CachedEncodings TextPrompt PointPrompt LoadInstanceMap LoadReferringMask LoadImage PackGenSegInputs '
    'LoadBoundaries RandomInstanceFlip '
    'KeepClasses RandomInstanceCrop RandomScenePermute UseDescriptions RandomReferringFlip NetworkResize '
    'AntialiasedResize NetworkPipeline',
    'METRICS': 'ReferringMetric EdgeMetric PointPromptMetric ClassAgnosticCocoMetric',
    'LOG_PROCESSORS': 'TaskLogProcessor',
    'LOOPS': 'BenchmarkLoop UpdateBasedTrainLoop',
    'HOOKS': 'IterationSeedHook ParameterEMAHook SafeCheckpointHook PredictionGridHook',
    'STRATEGIES': 'FSDP2Strategy',
    'RUNNERS': 'SafeFlexibleRunner SafeRunner',
    'OPTIM_WRAPPERS': 'AutocastOptimWrapper',
    'OPTIM_WRAPPER_CONSTRUCTORS': 'MuonOptimWrapperConstructor',
    'OPTIMIZERS': 'MuonAdamW',
    'TASK_UTILS': 'UniformTimesteps LogitNormalTimesteps LongTailTimesteps JointTimesteps',
}


@pytest.mark.parametrize('path', sorted(PACKAGE.rglob('*.py')), ids=lambda p: p.stem)
def test_files_stay_readable(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 500, f'{path.name} has {len(lines)} lines: does it hold two rooms?'
    tree = ast.parse('\n'.join(lines))
    assert ast.get_docstring(tree), f'{path.name} has no docstring'
    long = [
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno > 90
    ]
    assert long == []


# Who may read text, JSON, tables or pickles without genseg_mm/files, and why.
READERS = {
    'genseg_mm/files/texts.py': 'the one place',
    'genseg_mm/files/pickles.py': 'the one place for pickles',
    'genseg_mm/files/write_lock.py': 'the line with which a lock is signed',
    'genseg_mm/datasets/encoding_cache.py': 'lines of its own, of which a killed writer may leave half a one',
    'genseg_mm/leaderboard/reported_rows.py': 'tables of the package itself',
}
RAW = {'load', 'loads', 'reader', 'DictReader', 'read_text'}


def raw_readings(path: Path) -> list[str]:
    """Calls of json, csv and pickle that read, and of ``read_text``."""
    return [
        f'{path.relative_to(ROOT)}:{node.lineno}'
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in RAW
        and (node.func.attr == 'read_text' or getattr(node.func.value, 'id', '') in ('json', 'csv', 'pickle'))
    ]


def test_files_are_read_in_one_way():
    found = [
        place
        for room in ('files', 'datasets', 'leaderboard', 'models', 'comparing', 'evaluation', 'inference')
        for file in sorted((PACKAGE / room).rglob('*.py'))
        if file.relative_to(ROOT).as_posix() not in READERS
        for place in raw_readings(file)
    ]
    # What goes through JSON to become plain values, without a file.
    assert [place.partition(':')[0] for place in found] == ['genseg_mm/datasets/transforms/referring.py']
    assert raw_readings(PACKAGE / 'leaderboard' / 'reported_rows.py') != []
