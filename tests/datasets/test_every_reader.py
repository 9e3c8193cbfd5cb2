"""Every file that any dataset reads, damaged in many ways: the right items, or one line that names the file.

The files are found by looking: what a dataset opens while it is built is what is damaged. A registered dataset without
a row in ``DATASETS_OF`` is an error of this test.
"""

import codecs
import copy
import importlib.util
import inspect
import json
import os
import pickle
import random
import runpy
import time
from pathlib import Path

import pytest
from tiny_datasets import TOOLS, maker

import genseg_mm.datasets
from genseg_mm.datasets import LoadInstanceMap, LoadReferringMask, image_text
from genseg_mm.files import texts

MAKERS = ('captions', 'coco', 'grefcoco', 'reasonseg', 'dram', 'egohos', 'ishape', 'pidray', 'bsds500')
MORE_MAKERS = ('hypersim', 'virtual_kitti2', 'clevrtex', 'own')
SPLIT = 'metadata_images_split_scene_v1.csv'
COCO_VAL = dict(ann_file='annotations/instances_val2017.json', data_prefix=dict(img='val2017/'))
CAPTIONS = dict(ann_file='annotations/captions_train2014.json', data_prefix=dict(img_path='train2014/'))
LISTS = ('list.jsonl', 'list.csv', 'list.tsv', 'folder', 'shards/*.tar')
HAS_PARQUET = importlib.util.find_spec('pyarrow') is not None  # of the extra [parquet]
PARQUET = [('own/parquet', dict(ann_file='refs.parquet', split='train'))] * HAS_PARQUET
# Name of a dataset -> arguments of several; the first is the folder of its data.
DATASETS_OF = dict(
    CocoInstanceDataset=[('coco', COCO_VAL)],
    CocoCaptionsDataset=[
        ('coco', CAPTIONS),
        ('coco', dict(CAPTIONS, exclude_images=['ids.txt', 'set.p', 'grefcoco/grefs(unc).json'])),
    ],
    RefCOCODataset=[('coco', dict(split='val', test_mode=True))],
    GRefCOCODataset=[('coco', dict(split='train'))],
    ReasonSegDataset=[('', dict(split='train'))],
    ImageTextDataset=[('image_text', dict(sources=source, test_mode=True)) for source in LISTS]
    + [('image_text', dict(sources='shards/tiny-000000.tar', index_dir='index'))],
    DRAMDataset=[('dram', {})],
    EgoHOSDataset=[('egohos', {})],
    IShapeDataset=[('ishape', dict(source='coco', subset='wire'))],
    PIDRayDataset=[('pidray', dict(split='hard'))],
    BSDS500Dataset=[('bsds500', {})],
    HypersimDataset=[('hypersim', dict(split_file=SPLIT, partition='train', index_file='index.csv'))],
    VirtualKITTI2Dataset=[('virtual_kitti2', dict(missing='skip'))],
    ClevrTexDataset=[('clevrtex', {})],
    InstanceFolderDataset=[
        ('own/coco', dict(format='coco')),
        ('own/lvis', dict(format='coco', images='.', annotations='lvis.json', split='val')),
        ('own/yolo', dict(format='yolo', annotations='data.yaml', split='train')),
        ('own/yolo', dict(format='yolo', images='images/val', annotations='labels/val')),
    ],
    ReferringDataset=[
        ('own/referring', dict(ann_file='refs.csv', mask_values='0/255', split='train')),
        ('own/polygons', dict(ann_file='refs.jsonl', split='val', test_mode=True)),
        *PARQUET,
    ],
    ShapesDataset=[],  # nothing on disk
    ObjectScenesDataset=[],  # one file, see test_object_bank.py
    MixedDataset=[],  # of others
    SeededDataset=[],
)
CASES = [
    pytest.param(name, folder, kwargs, id=f'{name}-{number}')
    for name, settings in DATASETS_OF.items()
    for number, (folder, kwargs) in enumerate(settings)
]
WRONG = (
    None, float('nan'), float('inf'), -1, 0, 1.5, True, 10**400, 2**63, '', ' ', 'x', '0', 'cut \ud83d', '\0',
    '/etc/passwd', '../' * 30 + 'etc/passwd', [], {}, [[]], [None] * 4, list('1234'), [[1, 2, 3, '4', 5, 6]],
)  # fmt: skip
OWN_SIZE = (72, 96)  # of the pictures of make_tiny_own.py
NUM_MUTATIONS = 50
SECONDS = 10  # of processor time, for files of a few thousand bytes


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('every')
    for name in (*MAKERS, *MORE_MAKERS):
        maker(name)(root / {'captions': '', 'reasonseg': '', 'grefcoco': 'coco'}.get(name, name))
    (root / 'coco' / 'ids.txt').write_text('108\n000000000129.jpg\n')
    (root / 'coco' / 'set.p').write_bytes(pickle.dumps({136, 143}))
    image_text = root / 'image_text'
    rows = [json.loads(line) for line in (image_text / 'list.jsonl').read_text().splitlines()]
    lines = ['image\ttext', *(f'{row["image"]}\t{row["text"]}' for row in rows)]
    (image_text / 'list.tsv').write_text('\n'.join(lines) + '\n')
    tool = runpy.run_path(str(TOOLS / 'prepare_hypersim.py'))
    tool['prepare_hypersim'](root / 'hypersim', root / 'hypersim' / 'index.csv', workers=1)
    return root


@pytest.fixture(autouse=True)
def quiet():
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')
    yield
    logger.setLevel(level)


def build(name: str, folder: Path, kwargs: dict):
    return getattr(genseg_mm.datasets, name)(**{'data_root': str(folder), 'serialize_data': False, **kwargs})


def items_of(dataset) -> list[dict]:
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def opened_files(name: str, folder: Path, kwargs: dict) -> list[Path]:
    """The files of text that a dataset opens, the first of each folder and ending."""
    found: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        opened, scanned = texts._opened, image_text._scan
        patch.setattr(texts, '_opened', lambda path: found.append(str(path)) or opened(path))
        patch.setattr(image_text, '_scan', lambda path, *rest: found.append(str(path)) or scanned(path, *rest))
        items_of(build(name, folder, kwargs))
        build(name, folder, kwargs).full_init()  # now with the index that the first made
    first = {(os.path.dirname(path), os.path.splitext(path)[1]): Path(path) for path in reversed(found)}
    return sorted(first.values())


def outcome(name: str, folder: Path, kwargs: dict, path: Path) -> list[dict] | str:
    """The items, or the one line that names the file."""
    start = time.process_time()
    try:
        items = items_of(build(name, folder, kwargs))
        for item in items[:3]:
            for key, load in (
                ('segmentations', LoadReferringMask),
                ('row_mask', LoadReferringMask),
                ('instances', LoadInstanceMap),
            ):
                if key in item:
                    size = dict(ori_shape=OWN_SIZE) if key == 'row_mask' else {}
                    load()(copy.deepcopy(dict(item, **size)))
    except (ValueError, FileNotFoundError) as error:
        message = str(error)
        assert type(error) in (ValueError, FileNotFoundError), repr(error)
        assert '\n' not in message and (path.name in message or str(folder) in message), message
        return message
    finally:
        assert time.process_time() - start < SECONDS
    for item in items:
        for text in [item.get('text', 'x'), *item.get('captions', []), *item.get('sentences', [])]:
            assert text.strip() and text.encode()  # what a tokenizer takes
        whole = os.path.abspath(item['img_path'].removeprefix('tar://'))
        assert whole.startswith(f'{folder.resolve()}{os.sep}'), whole
    return items


def mutated(content, rng: random.Random):
    """A copy with one value, at any depth, that is wrong or gone."""
    content = copy.deepcopy(content)
    if isinstance(content, set):
        return rng.choice([[rng.choice(WRONG)], {1.5, 'x'}, {'\ud83d'}, set(), None, 3])
    node, parent, key = content, None, None
    while isinstance(node, (dict, list)) and node and (parent is None or rng.random() < 0.8):
        parent, key = node, rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        node = node[key]
    if parent is None or rng.random() < 0.02:
        return rng.choice(WRONG)
    if rng.random() < 0.15:
        del parent[key]
    else:
        parent[key] = copy.deepcopy(rng.choice(WRONG))
    return content


def structured(path: Path, data: bytes, rng: random.Random):
    """Files of the same format with wrong content."""
    if path.suffix == '.json':
        content = json.loads(data.decode('cp1252'))
        for _ in range(NUM_MUTATIONS):
            yield json.dumps(mutated(content, rng)).encode()
        yield b'[' * 100_000 + b']' * 100_000
        yield b'{"images":' * 100_000
        yield data.rstrip()[:-1] + b', "images": 3, "text": 4, "key": 5}'
    elif path.suffix == '.jsonl':
        rows = [json.loads(line) for line in data.decode().splitlines()]
        for _ in range(NUM_MUTATIONS):
            own = mutated(rows, rng)
            if isinstance(own, list):
                yield '\n'.join(map(json.dumps, own)).encode()
        yield data + b'[' * 100_000
    elif path.suffix == '.p':
        content = pickle.loads(data)
        for _ in range(NUM_MUTATIONS):
            yield pickle.dumps(mutated(content, rng), protocol=2)
        yield b'})' + b'\x85' * 200_000 + b'K\x01s.'
        yield pickle.dumps([(1, 2)])
    elif path.suffix in ('.csv', '.tsv', '.txt'):
        cells = [value for value in WRONG if isinstance(value, str) and '\ud83d' not in value]
        for _ in range(NUM_MUTATIONS):
            lines = data.decode().splitlines()
            place = rng.randrange(len(lines))
            parts = lines[place].split(',')
            parts[rng.randrange(len(parts))] = rng.choice([*cells, '"', '=1', '1,2', '9' * 5000])
            lines[place] = ','.join(parts)
            yield '\n'.join(lines).encode()


def noisy(data: bytes, rng: random.Random):
    """Cut files, and files with a few other bytes."""
    for _ in range(8):
        yield data[: rng.randrange(len(data))]
    for _ in range(24):
        own = bytearray(data)
        for _ in range(rng.randrange(1, 6)):
            own[rng.randrange(len(own))] = rng.randrange(256)
        yield bytes(own)
    yield b''
    yield bytes(512)
    yield 'caf\xe9 \x81'.encode('latin-1') + data


def test_every_dataset_has_a_row():
    known = {
        name for name, own in vars(genseg_mm.datasets).items() if inspect.isclass(own) and name.endswith('Dataset')
    }
    assert known == set(DATASETS_OF)


@pytest.mark.parametrize(('name', 'folder', 'kwargs'), CASES)
def test_damage_gives_the_right_items_or_one_line(root, name, folder, kwargs):
    folder = root / folder
    expected = items_of(build(name, folder, kwargs))
    found = opened_files(name, folder, kwargs)
    if name in ('EgoHOSDataset', 'BSDS500Dataset', 'VirtualKITTI2Dataset', 'ClevrTexDataset'):
        assert found == []  # their annotations are pictures or matrices
        return
    assert found
    num_errors = num_kept = 0
    for path in found:
        data, rng = path.read_bytes(), random.Random(f'{name} {kwargs} {path.suffix}')  # not of this run's folder
        state = path.stat()
        try:
            for damaged in (*structured(path, data, rng), *noisy(data, rng)):
                path.write_bytes(damaged)
                if path.suffix == '.json' and path.parent.name == 'index':
                    os.utime(path)
                is_error = isinstance(outcome(name, folder, kwargs, path), str)
                num_errors, num_kept = num_errors + is_error, num_kept + (not is_error)
        finally:
            path.write_bytes(data)
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert num_errors + num_kept > 30 * len(found)
    assert num_errors > 0 or found[0].suffix in ('.txt', '.tar')  # files beside pictures are left out
    assert items_of(build(name, folder, kwargs)) == expected


@pytest.mark.parametrize(('name', 'folder', 'kwargs'), CASES)
def test_marks_change_nothing(root, name, folder, kwargs):
    folder = root / folder
    expected = items_of(build(name, folder, kwargs))
    for path in opened_files(name, folder, kwargs):
        if path.suffix in ('.p', '.tar', '.parquet'):
            continue
        data = path.read_bytes()
        text = data.decode('cp1252' if b'\xe9' in data else 'utf-8')
        try:
            for mark, encoding in ((codecs.BOM_UTF8, 'utf-8'), (codecs.BOM_UTF16_LE, 'utf-16-le'),
                                   (codecs.BOM_UTF16_BE, 'utf-16-be')):  # fmt: skip
                path.write_bytes(mark + text.encode(encoding))
                assert items_of(build(name, folder, kwargs)) == expected, (path, encoding)
        finally:
            path.write_bytes(data)
