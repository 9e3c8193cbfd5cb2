"""prepare_own.py as its user meets it: from a raw folder to a trained and evaluated model; folders that are none."""

import importlib.util
import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from genseg_mm.benchmarking.provenance import dataset_fingerprint
from genseg_mm.command import COMMANDS
from genseg_mm.config_file import find_config
from genseg_mm.datasets import LoadInstanceMap
from genseg_mm.datasets.own_folders import look_at
from genseg_mm.launch.own_config import MODELS, choose_model, training_size
from genseg_mm.registry import DATASETS

TOOLS = Path(__file__).parents[2] / 'tools'
TOOL = 'dataset_tools/prepare_own.py'
NUM = 10
SHORT = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2']
# folder -> kind, and what the lines hold: of training, of validation
FOLDERS = {
    'maps': ('maps', '8 pictures, .* instances, 96x72', '2 pictures'),
    'coco': ('coco', r'8 pictures, .* instances \(\d+ in all\)', '2 pictures'),
    'lvis': ('coco', '8 pictures, .* instances', '2 pictures'),
    'yolo': ('yolo', '8 pictures, .* instances', '2 pictures'),
    'referring': ('referring', r'8 pictures, \d+ masks, \d+ sentences', '2 pictures, .* sentences'),
    'polygons': ('referring', r'8 pictures, \d+ masks, \d+ sentences', '2 pictures, .* sentences'),
    'parquet': ('referring', r'8 pictures, \d+ masks, \d+ sentences', '2 pictures, .* sentences'),
    'rows': ('rows', '8 pictures, .* instances', '2 pictures'),
}
NEEDS = dict(parquet=('pyarrow', 'parquet'), rows=('datasets', 'huggingface'))
FAST = ('yolo', 'referring')  # the others are slow tests


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> Path:
    tool = runpy.run_path(str(TOOLS / 'dataset_tools/make_tiny_own.py'))
    return tool['make_tiny_own'](tmp_path_factory.mktemp('own'), NUM)


@pytest.fixture
def prepare(run_tool, tmp_path, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Runs the tool in an empty folder."""
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    return lambda *arguments: run_tool(TOOL, *arguments)


def needed(kind: str) -> None:
    """Skips what needs a package that is not here."""
    if kind in NEEDS and importlib.util.find_spec(NEEDS[kind][0]) is None:
        pytest.skip(f"needs {NEEDS[kind][0]}: pip install 'genseg_mm[{NEEDS[kind][1]}]'")


def folders() -> list:
    return [own if own in FAST else pytest.param(own, marks=pytest.mark.slow) for own in FOLDERS]


@pytest.mark.parametrize('folder', folders())
def test_from_a_raw_folder_to_a_trained_and_evaluated_model(folder, made, prepare, run_tool):
    """Three commands, and no line written by hand."""
    needed(folder)
    kind, of_train, of_val = FOLDERS[folder]
    code, printed, errors = prepare(made / folder)
    assert code == 0, errors
    lines = printed.splitlines()
    assert lines[0].startswith(f'{kind}: ') and any('are drawn for validation' in line for line in lines) == (
        folder not in ('yolo', 'polygons', 'parquet')
    )
    assert re.search(f'^train: {of_train}', printed, re.MULTILINE) and re.search(
        f'^val: {of_val}', printed, re.MULTILINE
    )
    train, test, predict = (line.strip().split() for line in lines[-3:])
    assert (train[:2], train[2]) == (['python', 'tools/train.py'], f'{folder}.py')
    assert run_tool('train.py', train[2], '--cfg-options', *SHORT)[0] == 0
    (best,) = Path().glob(test[3])
    code, printed, _ = run_tool('test.py', test[2], best)
    score = float(re.search(r'(?:oIoU|mIoU): ([\d.]+)', printed)[1])
    # The shipped models know such scenes; after two updates they still do.
    assert code == 0 and 45 < score < 100
    assert Path(predict[predict.index('--weights') + 1].replace('*', '2')).is_file()


def test_the_tool_says_the_commands_as_they_were_typed(made, prepare, monkeypatch):
    assert 'prepare own' in [own.name for own in COMMANDS]
    from genseg_mm import command

    printed = prepare(made / 'yolo')[1]
    assert '  python tools/train.py yolo.py\n' in printed
    monkeypatch.setattr(command, 'typed_name', lambda: 'genseg prepare own')
    assert '  genseg train referring.py\n' in prepare(made / 'referring')[1]


@pytest.mark.parametrize('folder', folders())
def test_check_reads_every_file(folder, made, prepare, tmp_path):
    needed(folder)
    if folder == 'rows':
        assert 'all files read' in prepare(made / folder, '--check')[1]
        return
    copy = shutil.copytree(made / folder, tmp_path / folder)
    code, printed, _ = prepare(copy, '--check')
    assert code == 0 and 'all files read' in printed
    damaged = next(own for own in sorted(copy.rglob('*.jpg')))
    damaged.write_bytes(damaged.read_bytes()[:200])
    code, printed, _ = prepare(copy, '--check', '--force')
    assert code == 1 and damaged.name in printed and 'not in order' in printed


def test_a_picture_is_drawn_alike_wherever_the_folder_lies(made, tmp_path):
    for folder in ('maps', 'yolo', 'referring', 'polygons'):
        prints = []
        for root in (made / folder, shutil.copytree(made / folder, tmp_path / 'elsewhere' / folder)):
            (own,), _ = look_at(str(root))
            prints.append(dataset_fingerprint(DATASETS.build(dict(own.val, test_mode=True))))
        assert prints[0] == prints[1]


# ---- folders as people have them


def picture(path: Path, array: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 10, 3), np.uint8) if array is None else array).save(path)


def ids(*values: int) -> np.ndarray:
    found = np.zeros((8, 10), np.uint8)
    for place, value in enumerate(values):
        found[1 + 3 * place : 3 + 3 * place, 2:5] = value
    return found


def only(folder: Path, **said: object) -> tuple[dict, dict, list[str]]:
    (own,), _ = look_at(str(folder), **said)
    plain = [
        {key: value for key, value in side.items() if key not in ('type', 'data_root')} for side in (own.train, own.val)
    ]
    return (*plain, own.notes)


def test_layouts_of_maps(tmp_path):
    for name in 'abcd':
        picture(tmp_path / f'one/train/images/{name}.png')
        picture(tmp_path / f'one/train/masks/{name}.png', ids(1, 2))
        picture(tmp_path / f'two/JPEGImages/{name}.jpg')
        picture(tmp_path / f'two/SegmentationObject/{name}_mask.png', ids(255))
        picture(tmp_path / f'three/photos/{name}.png')
        picture(tmp_path / f'three/colours_gt/{name}.png', np.stack([ids(1, 2) * 90] * 3, -1))
    picture(tmp_path / 'one/valid/images/e.png')
    picture(tmp_path / 'one/valid/masks/e.png', ids(1, 2))
    train, val, notes = only(tmp_path / 'one')
    assert (train['images'], train['annotations']) == ('train/images', 'train/masks') and 'split' not in train
    assert (val['images'], val['annotations'], notes) == ('valid/images', 'valid/masks', [])
    train, val, notes = only(tmp_path / 'two')
    assert train == dict(format='maps', images='JPEGImages', annotations='SegmentationObject', map_suffix='_mask.png',
                         ids='components', split='train')  # fmt: skip
    assert any('255' in note and 'every connected region is taken for one' in note for note in notes)
    assert only(tmp_path / 'two', ids='index')[0].get('ids', 'index') == 'index'
    train, _, notes = only(tmp_path / 'three')
    assert train['ids'] == 'rgb' and (train['images'], train['annotations']) == ('photos', 'colours_gt')
    assert any('each colour but black is an instance' in note for note in notes)


def test_the_layout_of_pascal_voc(tmp_path):
    """Maps of objects, not of classes; the borders of 255 are no object."""
    for name in 'abcd':
        picture(tmp_path / f'JPEGImages/{name}.jpg')
        for folder, values in (('SegmentationClass', (15, 255)), ('SegmentationObject', (1, 255))):
            drawn = Image.fromarray(ids(*values))
            drawn.putpalette([own % 256 for own in range(768)])
            (tmp_path / folder).mkdir(exist_ok=True)
            drawn.save(tmp_path / folder / f'{name}.png')
    train, _, notes = only(tmp_path)
    assert train == dict(format='maps', images='JPEGImages', annotations='SegmentationObject', void=255, split='train')
    assert any('255 is taken for borders' in note for note in notes)
    assert 'not taken, beside SegmentationObject: SegmentationClass' in notes
    dataset = DATASETS.build(dict(train, type='genseg_mm.InstanceFolderDataset', data_root=str(tmp_path), pipeline=[]))
    found = LoadInstanceMap()(dict(dataset.get_data_info(0)))['gt_instance_map']
    assert np.array_equal(found, ids(1, 0))


def test_layouts_of_yolo(tmp_path):
    for name in 'abcd':
        for layout in ('images/train', 'train/images'):
            picture(tmp_path / layout.replace('/', '_') / f'{layout}/{name}.jpg')
            labels = tmp_path / layout.replace('/', '_') / layout.replace('images', 'labels') / f'{name}.txt'
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text('0 0.1 0.1 0.6 0.1 0.6 0.7\n')
    for layout in ('images/val', 'valid/images'):
        root = tmp_path / ('images_train' if layout.startswith('images') else 'train_images')
        picture(root / f'{layout}/e.jpg')
        labels = root / layout.replace('images', 'labels') / 'e.txt'
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text('0 0.1 0.1 0.6 0.1 0.6 0.7\n')
    train, val, _ = only(tmp_path / 'images_train')
    assert (train['annotations'], val['annotations']) == ('labels/train', 'labels/val') and train['format'] == 'yolo'
    train, val, _ = only(tmp_path / 'train_images')
    assert (train['images'], val['images'], val['annotations']) == ('train/images', 'valid/images', 'valid/labels')


def test_layouts_of_coco_and_tables(made, tmp_path):
    copy = shutil.copytree(made / 'coco', tmp_path / 'coco')
    (copy / 'images').rename(copy / 'val2017')
    (copy / 'annotations').mkdir()
    content = json.loads((copy / 'annotations.json').read_text())
    (copy / 'annotations.json').rename(copy / 'annotations/instances_val2017.json')
    shutil.copytree(copy / 'val2017', copy / 'train2017')
    (copy / 'annotations/instances_train2017.json').write_text(json.dumps(content))
    (copy / 'annotations/captions_val2017.json').write_text(json.dumps(dict(content, annotations=[])))
    train, val, _ = only(copy)
    assert (train['images'], val['images']) == ('train2017', 'val2017')
    assert val['annotations'] == 'annotations/instances_val2017.json' and 'split' not in val
    table = tmp_path / 'table'
    for name in 'ab':
        picture(table / f'photos/{name}.png')
        picture(table / f'masks/{name}.png', ids(1))
    rows = [f'{name}.png,{name}.png,a thing,{split}' for name, split in (('a', 'train'), ('b', 'validation'))]
    (table / 'all.csv').write_text('\n'.join(['file_name,mask_path,caption,split', *rows]) + '\n')
    train, val, notes = only(table)
    assert train == dict(
        ann_file='all.csv', data_prefix=dict(img_path='photos', mask_path='masks'), mask_values='0/1', split='train',
        columns=dict(image='file_name', mask='mask_path', text='caption'),
    )  # fmt: skip
    assert val['split'] == 'validation' and notes == [
        'splits as the column says: train and validation', 'masks are files of values 0/1, as in 2 of them',
    ]  # fmt: skip
    assert only(table, kind='maps')[0]['format'] == 'maps'
    (table / 'train.jsonl').write_text(json.dumps(dict(image='a.png', mask='a.png', text='x')) + '\n')
    (table / 'val.jsonl').write_text(json.dumps(dict(image='b.png', mask='b.png', text='x')) + '\n')
    (table / 'all.csv').unlink()
    train, val, _ = only(table)
    assert (train['ann_file'], val['ann_file']) == ('train.jsonl', 'val.jsonl') and 'split' not in train


def test_what_else_lies_in_the_folder_does_no_harm(made, tmp_path, prepare):
    copy = shutil.copytree(made / 'coco', tmp_path / 'my photos.v2')
    (copy / 'package.json').write_text('{"a": 1,}')
    (copy / 'results.csv').write_text('epoch,epoch\n1,"x\n')
    code, printed, errors = prepare(copy)
    assert code == 0 and 'wrote my_photos_v2.py' in printed, errors
    Config.fromfile('my_photos_v2.py')
    labels = tmp_path / 'boxes/labels'
    labels.mkdir(parents=True)
    picture(tmp_path / 'boxes/images/a.png')
    picture(tmp_path / 'boxes/images/b.png')
    for name in ('a', 'b', 'classes'):
        (labels / f'{name}.txt').write_text('0 0.5 0.5 0.2 0.2\n' if name != 'classes' else 'cat\n')
    code, _, errors = prepare(tmp_path / 'boxes')
    assert code == 2 and 'labels: expected polygons, but got 1 boxes without a polygon' in errors


def test_a_picture_that_cannot_be_read_gives_no_config(made, tmp_path, prepare):
    copy = shutil.copytree(made / 'coco', tmp_path / 'torn')
    broken = next(path for path in sorted(copy.rglob('*')) if path.suffix in ('.jpg', '.png'))
    broken.write_bytes(b'no picture')
    code, printed, errors = prepare(copy)
    assert code == 2 and '1 of the files that were looked at cannot be read' in errors
    assert f'{broken}: expected' in printed and 'but got a file of no known format' in printed
    assert 'next:' not in printed and not Path('torn.py').exists()


def test_a_folder_per_video(tmp_path):
    for video in range(30):
        for frame in range(2):
            picture(tmp_path / f'JPEGImages/{video:02d}/{frame:03d}.jpg')
            picture(tmp_path / f'Annotations/{video:02d}/{frame:03d}.png', ids(1, 2))
    train, _, _ = only(tmp_path)
    assert train == dict(format='maps', images='JPEGImages', annotations='Annotations', split='train')


def test_values_that_could_mean_anything_have_to_be_said(prepare, tmp_path):
    for name, value in (('a', 3), ('b', 7)):
        picture(tmp_path / f'x/{name}.png')
        picture(tmp_path / f'x/{name}_m.png', ids(value))
    (tmp_path / 'x/refs.csv').write_text('image,mask,text\na.png,a_m.png,one\nb.png,b_m.png,two\n')
    code, _, errors = prepare(tmp_path / 'x')
    assert (
        code == 2 and 'hold the values 0, 3, 7: say what they mean (--mask-values, one of 0/1, 0/255, index' in errors
    )
    code, _, errors = prepare(tmp_path / 'x', '--mask-values', '0/255', '--check')
    assert code == 1  # a wrong one is found by reading


BAD = {
    'nothing': (lambda root: (root / 'notes.txt').write_text('x'), 'no data that is recognised: expected a json in'),
    'damaged json': (
        lambda root: (root / 'a.json').write_text('{"images": [{'),
        r'no data that is recognised: coco: .*a\.json is not a',
    ),
    'damaged table': (
        lambda root: (root / 'a.jsonl').write_text('{"image": '), r'referring: .*a\.jsonl, line 1 is no JSON'
    ),
    'a table of other columns': (
        lambda root: (root / 'a.csv').write_text('image|mask|text\na.png|b.png|x\n'),
        r"a\.csv: expected columns of pictures, masks and texts .* but got \['image\|mask\|text'\]",
    ),
    'names of classes that are lists of lists': (
        lambda root: (root / 'data.yaml').write_text('train: .\nval: .\nx: &a [1]\nnames:\n  0: [*a, *a]\n'),
        r'data\.yaml: expected .*, but got a list for a name',
    ),
    'RefCOCO': (
        lambda root: (root / 'refs(unc).p').touch(),
        r'x is of RefCOCO, which the config refcoco reads, .* GENSEG_DATA names .*; --kind \(referring',
    ),
    'gRefCOCO': (
        lambda root: (root / 'grefs(unc).json').touch(),
        'x is of gRefCOCO, which the config mixed reads, from the folder that GENSEG_DATA names',
    ),
    'ReasonSeg': (
        lambda root: (root / '1.json').write_bytes('{"text": ["caf\xe9"], "shapes": []}'.encode('cp1252')),
        'x is of ReasonSeg, which the config reasonseg reads, from the folder that GENSEG_DATA names',
    ),
    'labelme': (
        lambda root: (root / '1.json').write_text('{"imagePath": "1.jpg", "shapes": []}'),
        "x holds labelme's json, one per picture: convert it to COCO's first",
    ),
    'no pictures': (
        lambda root: (root / 'a.csv').write_text('image,mask,text\na.png,b.png,x\n'),
        r'pictures: there is no a\.png in any',
    ),
}  # fmt: skip


@pytest.mark.parametrize('case', BAD)
def test_folders_that_hold_none(case, prepare, tmp_path):
    (tmp_path / 'x').mkdir()
    BAD[case][0](tmp_path / 'x')
    code, _, errors = prepare(tmp_path / 'x')
    assert code == 2 and re.search(BAD[case][1], errors) and errors.count('\n') == 1
    for name in re.findall(r'which the config (\w+) reads', errors):
        find_config(name)  # there is one


@pytest.mark.parametrize('separator', [',', ';', '\t'])
def test_tables_and_paths_of_windows(separator, tmp_path):
    """Cells are parted as spreadsheets of other languages do; paths have backslashes, in data.yaml, too."""
    for name in 'ab':
        picture(tmp_path / f'images/{name}.png')
        picture(tmp_path / f'masks/{name}.png', np.full((6, 8), 255, np.uint8))
    quoted = '"' + f'"{separator}"'.join([r'images\a.png', r'masks\a.png', 'a,;.']) + '"'
    rows = [separator.join(('image', 'mask', 'text')), quoted, quoted.replace('a.png', 'b.png')]
    (tmp_path / 'refs.csv').write_bytes(b'\xef\xbb\xbf' + '\r\n'.join(rows).encode())
    (own,), refused = look_at(str(tmp_path), kind='referring')
    dataset = DATASETS.build(dict(own.train, split=None))
    assert not refused and len(dataset) == 2 and dataset.get_data_info(0)['sentences'] == ['a,;.']
    assert [Path(item['img_path']).is_file() and Path(item['mask_path']).is_file() for item in dataset] == [True, True]


def test_data_yaml_of_windows(tmp_path):
    for name in 'ab':
        picture(tmp_path / f'train/images/{name}.png')
        (tmp_path / 'train/labels').mkdir(exist_ok=True)
        (tmp_path / f'train/labels/{name}.txt').write_text('0 0.1 0.1 0.5 0.1 0.5 0.5\n')
    for text in ('path: C:\\me\ntrain: train\\images\n', 'train: ..\\train\\images\n'):
        (tmp_path / 'data.yaml').write_text(f'{text}names: [thing]\n')
        (own,), _ = look_at(str(tmp_path), kind='yolo')
        assert own.train['format'] == 'yolo' and len(DATASETS.build(dict(own.train, split=None))) == 2


def test_columns_in_capitals_and_with_spaces_are_known(tmp_path):
    for name in 'ab':
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / f'{name}.png')
        Image.fromarray(np.full((6, 8), 255, np.uint8)).save(tmp_path / f'{name}_m.png')
    (tmp_path / 'a.csv').write_text('Image, Mask, Text\na.png, a_m.png, one\nb.png, b_m.png, two\n')
    (own,), refused = look_at(str(tmp_path), kind='referring')
    assert own.train['columns'] == dict(image='Image', mask=' Mask', text=' Text') and not refused


def test_mistakes_of_the_command_line(made, prepare, tmp_path):
    for words, message in (
        ([tmp_path / 'none'], 'there is no folder'),
        ([made], r'holds several kinds of data: .*; choose one by --kind'),
        (
            [made / 'maps', '--model', 'genmask-tiny'],
            '--model genmask-tiny: expected a Gen2Seg, .* but it is a GenMask',
        ),
        ([made / 'maps', '--model', 'gen2seg-tinny'], "did you mean 'gen2seg-tiny'"),
        ([made / 'maps', '--val-share', '2'], '--val-share: expected a share between 0 and 1'),
        ([made / 'maps', '--out', 'x.txt'], r'ends with \.py, but got x\.txt'),
        ([made / 'maps', '--weights', 'none.pth'], r'--weights: there is no file .*none\.pth'),
        ([made / 'maps', '--kind', 'yolo'], 'no data that is recognised'),
    ):
        code, _, errors = prepare(*words)
        assert code == 2 and re.search(message, errors), errors
        assert list(Path().iterdir()) == []
    assert prepare(made / 'maps')[0] == 0
    code, _, errors = prepare(made / 'maps')
    assert code == 2 and 'maps.py is there already: choose another name, or --force replaces it' in errors


@pytest.mark.parametrize(('task', 'name'), [(task, name) for task, own in MODELS.items() for name in own])
def test_every_model_by_its_short_name(task, name, made, prepare):
    model = choose_model(name, task)
    assert (model.weights is not None) == ('tiny' in name) and min(training_size(model.cfg)) >= 64
    folder = made / ('referring' if task == 'referring' else 'yolo')
    code, printed, errors = prepare(folder, '--model', name)
    assert code == 0, errors
    cfg = Config.fromfile(f'{folder.name}.py')
    assert cfg.load_from == model.weights and f'wrote {folder.name}.py: {model.config}' in printed
    assert cfg.train_dataloader.dataset.data_root == str(folder)
    assert cfg.model.type == choose_model(name, task).cfg.model.type
    from genseg_mm.launch.config_checks import check_config

    check_config(cfg, f'{folder.name}.py', 'train')


@pytest.mark.slow
def test_a_large_model_trains_on_own_data(made, prepare):
    """Rehearsed: its released classes with random weights, a layer or two each."""
    assert prepare(made / 'yolo', '--model', 'gen2seg-sd2', '--out', 'large.py')[0] == 0
    command = [sys.executable, str(TOOLS / 'rehearse.py'), 'large.py', '--width', 'tiny', '--until', 'train']
    done = subprocess.run([*command, '--out', 'out'], capture_output=True, text=True)
    assert done.returncode == 0 and '1 of 1 passed' in done.stdout, done.stdout + done.stderr
    (row,) = json.loads(Path('out/rehearsal.json').read_text())
    assert [own['name'] for own in row['stages']][-1] == 'train' and not row['error']


@pytest.mark.parametrize(
    ('table', 'message'),
    [
        ('image,mask,text\na.png,nope.png,x\n', r'referring: .*refs\.csv: masks: there is no nope\.png in any of'),
        ('image,mask,text\na.png,a.png,\xf6\n', r'refs\.csv, line 2: expected UTF-8, but got the byte 0xf6'),
        ('image,msk,text\na.png,a.png,x\n', r'expected a column of masks \(mask, .*\), but got only image, msk, text'),
    ],
)
def test_maps_are_not_taken_for_a_table_of_sentences_that_cannot_be_read(table, message, prepare, tmp_path):
    """The folder says what was meant; training on something else would pass without a word."""
    for name in 'ab':
        picture(tmp_path / f'x/images/{name}.png')
        picture(tmp_path / f'x/masks/{name}.png', ids(1, 2))
    (tmp_path / 'x/refs.csv').write_text(table, encoding='cp1252')
    code, _, errors = prepare(tmp_path / 'x')
    assert code == 2 and re.search(message, errors) and errors.count('\n') == 1, errors
    assert '; mend that, or --kind maps takes what else is there' in errors and not Path('x.py').exists()
    assert prepare(tmp_path / 'x', '--kind', 'maps')[0] == 0


def test_commands_are_said_as_typed_after_a_check_too(made, prepare, monkeypatch):
    """``--check`` runs another tool in this process, with another command line."""
    from genseg_mm import command

    tool = str(TOOLS / TOOL)
    monkeypatch.setattr(command, '_called', (Path(tool), 'genseg prepare own'))
    code, printed, errors = prepare(made / 'yolo', '--check')
    assert code == 0 and '  genseg train yolo.py\n' in printed and 'python tools/' not in printed, errors
