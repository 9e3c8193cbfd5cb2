"""Tools that verify, draw and make datasets, run as a user runs them."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools'
MAKERS = dict(coco='coco', clevrtex='clevrtex', refcoco='coco')  # and their folders
CONFIGS = ROOT / 'configs' / '_base_' / 'datasets'


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A tiny copy of each dataset."""
    root = tmp_path_factory.mktemp('made')
    for name, folder in MAKERS.items():
        tool = runpy.run_path(str(TOOLS / 'dataset_tools' / f'make_tiny_{name}.py'))
        tool[f'make_tiny_{name}'](root / folder)
    return root


@pytest.fixture
def data(made, tmp_path, monkeypatch):
    """GENSEG_DATA with datasets that the test may damage."""
    shutil.copytree(made, tmp_path / 'data')
    monkeypatch.setenv('GENSEG_DATA', str(tmp_path / 'data'))
    return tmp_path / 'data'


@pytest.fixture
def coco(tmp_path):
    """Config that trains on COCO and evaluates points on it."""
    path = tmp_path / 'coco.py'
    bases = [str(CONFIGS / f'coco_{part}_224.py') for part in ('instance', 'points')]
    path.write_text(f'_base_ = {bases}')
    return path


@pytest.fixture
def clevrtex(tmp_path):
    """Config with all three parts of ClevrTex."""
    path = tmp_path / 'clevrtex.py'
    lines = [
        f'_base_ = [{str(CONFIGS / "clevrtex_sd.py")!r}]',
        'train = _base_.train_dataloader',
        'part = train.dataset.datasets[0]',
    ]
    for split in ('val', 'test'):
        dataset = f'dict(part, split={split!r}, test_mode=True)'
        lines.append(f'{split}_dataloader = dict(train, dataset={dataset})')
    path.write_text('\n'.join(lines))
    return path


@pytest.fixture
def browse(run_tool):
    """Runs browse_dataset; exit code, the pictures by the names of their files, output and errors together."""

    def run(config, out, *arguments):
        code, *said = run_tool('analysis_tools/browse_dataset.py', config, '--out-dir', out, *arguments)
        return code, {path.stem: np.asarray(Image.open(path)) for path in Path(out).glob('*.png')}, ''.join(said)

    return run


# ---- verify


def test_whole_datasets_are_counted(data, coco, clevrtex, verify):
    code, reports, text = verify(coco)
    assert code == 0
    assert list(reports) == ['train', 'val', 'test']
    train = reports['train']
    assert (train['items'], train['instances'], train['crowd']) == (4, [1, 2.5, 3], 1)
    assert train['expected'] == 118_287 and train['max_id'] == 3
    assert train['notes'] == ['2 left out: without an instance']
    assert reports['val']['notes'][1] == '3 annotations dropped: other class'
    assert 'train    4      118287    0        0           0            1 / 2.5 / 3' in text
    assert text.endswith('all files read\n')
    code, reports, text = verify(clevrtex)
    assert code == 0
    assert [own['items'] for own in reports.values()] == [16, 2, 2]
    assert reports['val']['instances'] == [3, 4, 5]


def test_it_goes_on_after_bad_files_and_names_them_all(data, verify):
    pictures = sorted((data / 'coco' / 'train2017').glob('*.jpg'))
    pictures[0].unlink()
    pictures[1].write_bytes(pictures[1].read_bytes()[:900])
    Image.new('RGB', (7, 5)).save(pictures[2])
    path = data / 'coco' / 'annotations' / 'instances_train2017.json'
    content = json.loads(path.read_text())
    content['annotations'][-1]['segmentation'] = dict(size=[160, 120], counts=[5])
    path.write_text(json.dumps(content))
    code, reports, text = verify(CONFIGS / 'coco_instance_sd.py', '--split', 'train', '--workers', '1')
    report = reports['train']
    assert code == 1
    assert list(report['missing']) == [str(pictures[0])]
    assert sorted(report['unreadable']) == [str(pictures[1]), str(pictures[2])]
    assert 'is cut short (900 bytes' in report['unreadable'][str(pictures[1])]
    assert '160x120 as annotated, but got 5x7' in report['unreadable'][str(pictures[2])]
    # The config asks for invalid='skip': counted, and the picture has no instance left.
    assert (report['invalid'], report['no_instance'], report['instances']) == (1, 1, [0, 0, 0])
    assert f'train: missing: {pictures[0]}' in text and text.endswith('not in order: train\n')


def test_missing_pairs_and_wrong_maps_of_an_instance_map_dataset(data, clevrtex, verify):
    flat = sorted((data / 'clevrtex').rglob('*_flat.png'))
    flat[0].unlink()
    Image.new('P', (8, 6)).save(flat[2])
    ids = np.full((240, 320), 300, np.uint16)
    Image.fromarray(ids).save(flat[3])
    (data / 'clevrtex' / 'clevrtex_full' / '1' / 'CLEVRTEX_full_000007.png').write_bytes(b'no')
    code, reports, _ = verify(clevrtex, '--first', '0')
    assert code == 1
    assert [(own['items'], len(own['missing']), len(own['unreadable'])) for own in reports.values()] == [
        (16, 0, 1), (2, 0, 1), (1, 1, 0),
    ]  # fmt: skip
    assert reports['test']['missing'] == {str(flat[0]): 'no instance map'}
    assert reports['val']['frames_over_255'] == 1 and reports['val']['max_id'] == 300
    (message,) = reports['val']['unreadable'].values()
    assert 'expected the size of the image' in message and '(6, 8)' in message
    (message,) = reports['train']['unreadable'].values()
    assert 'cannot be decoded (2 bytes' in message
    with Image.open(flat[2]) as image:
        image.convert('RGB').save(flat[3])
    _, reports, _ = verify(clevrtex, '--split', 'val')
    assert 'but got mode RGB, colours' in list(reports['val']['unreadable'].values())[1]


def test_referring_and_procedural_datasets_are_verified(data, verify):
    made = data.parent / 'captions'
    runpy.run_path(str(TOOLS / 'dataset_tools/make_tiny_captions.py'))['make_tiny_captions'](made)
    captions = 'annotations/captions_train2014.json'
    shutil.copy(made / 'coco' / captions, data / 'coco' / captions)
    for picture in (made / 'coco/train2014').iterdir():  # RefCOCO's own pictures stay
        if not (data / 'coco/train2014' / picture.name).exists():
            shutil.copy(picture, data / 'coco/train2014')
    code, reports, _ = verify(ROOT / 'configs/genmask/refcoco.py')
    assert code == 0
    assert reports['train 1/2']['items'] == 7 and reports['train 2/2']['items'] == 2
    assert reports['val']['items'] == 3 and reports['val']['expected'] == 10_834
    assert reports['val']['same'] == ['test'] and reports['val']['max_id'] is None
    code, reports, _ = verify(ROOT / 'configs/gen2seg/gen2seg_unet_shapes_tiny.py', '--max-items', '5')
    assert code == 0 and list(reports)[:2] == ['train', 'val 1/3']
    assert reports['train']['items'] == 10_000
    assert 'only 5 of 10000 items read (--max-items)' in reports['train']['notes']


MMDET = """
default_scope = 'mmdet'
train_dataloader = dict(
    dataset=dict(
        type='RepeatDataset',
        times=3,
        dataset=dict(
            type='CocoDataset',
            data_root='{root}',
            ann_file='annotations/instances_train2017.json',
            data_prefix=dict(img='train2017/'),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
                dict(type='Resize', scale=(64, 48), keep_ratio=False),
                dict(type='PackDetInputs'),
            ],
        ),
    )
)
"""


def test_configs_of_mmdet_work(data, tmp_path, verify, browse):
    config = tmp_path / 'theirs.py'
    config.write_text(MMDET.replace('{root}', str(data / 'coco')))
    (data / 'coco' / 'train2017' / '000000000139.jpg').unlink()
    code, reports, _ = verify(config)
    assert code == 1 and reports['train']['items'] == 6
    assert [Path(path).name for path in reports['train']['missing']] == ['000000000139.jpg']
    # The lantern is not among mmdet's classes, and it keeps crowds apart.
    assert reports['train']['instances'] == [0, 1, 2] and reports['train']['crowd'] == 2
    for stage, width in (('pipeline', 64), ('raw', 120)):
        code, drawn, _ = browse(config, tmp_path / stage, '--indices', 2, '--stage', stage)
        assert code == 0 and list(drawn) == ['train_0001']
        assert drawn['train_0001'].shape[1] > 3 * width


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nowhere.py'], 'config nowhere.py does not exist'),
        (['README.md'], 'is not a config'),
        (['configs/_base_/default_runtime.py'], 'has no dataset: expected one of train_dataloader'),
        (['configs/_base_/datasets/clevrtex_sd.py', '--cfg-options', 'valdataloader=1'], "has no 'valdataloader'"),
    ],
)
@pytest.mark.parametrize('tool', ['dataset_tools/verify_dataset.py', 'analysis_tools/browse_dataset.py'])
def test_wrong_input_is_told_in_one_line(tool, arguments, message, monkeypatch, run_tool):
    monkeypatch.chdir(ROOT)
    code, _, errors = run_tool(tool, *arguments)
    assert code == 2
    assert message in errors


def test_a_dataset_that_cannot_be_built_does_not_hide_the_others(data, coco, verify):
    (data / 'coco' / 'annotations' / 'instances_train2017.json').unlink()
    code, reports, text = verify(coco)
    assert code == 1 and reports['val']['items'] == 2
    assert 'instances_train2017.json' in reports['train']['failed']
    assert 'train: cannot be built: ' in text


# ---- browse


def test_pictures_show_image_ground_truth_and_instances(data, clevrtex, tmp_path, browse):
    code, drawn, text = browse(clevrtex, tmp_path / 'out', '--split', 'test', '--stage', 'raw')
    assert code == 0 and list(drawn) == ['test_0001']
    picture = drawn['test_0001']
    height, gap, title, line = 192, 4, 19, 19  # 256 x 192 panels, two rows
    assert picture.shape == (title + 2 * (height + line + gap), 3 * 256 + 4 * gap, 3)
    flat = Image.open(next((data / 'clevrtex').rglob('CLEVRTEX_full_000000_flat.png')))
    instances = picture[title : title + height, gap + 2 * (256 + gap) :][:, :256]
    ids = np.asarray(flat.resize((256, 192), Image.Resampling.NEAREST))
    assert len(np.unique(instances.reshape(-1, 3), axis=0)) == len(np.unique(ids))
    background = (instances == 24).all(-1)
    assert np.mean(background == (ids == 0)) > 0.99
    assert 'test: 1 pictures' in text


def test_one_by_one_and_the_same_each_time(data, tmp_path, browse):
    config = CONFIGS / 'coco_instance_224.py'
    options = ['--split', 'train', '--one-by-one', '--num', '2']
    _, first, _ = browse(config, tmp_path / 'a', *options)
    _, second, _ = browse(config, tmp_path / 'b', *options)
    assert sorted(first) == ['train_0001', 'train_0002']
    assert all((first[name] == second[name]).all() for name in first)
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(first['train_0001'], first['train_0002'])


def test_an_unreadable_item_is_told_and_the_rest_drawn(data, tmp_path, browse, run_tool):
    path = data / 'coco' / 'val2017' / '000000001161.jpg'
    path.write_bytes(path.read_bytes()[:500])
    config = CONFIGS / 'coco_points_sd.py'
    code, drawn, text = browse(config, tmp_path / 'out', '--split', 'val')
    assert code == 1 and list(drawn) == ['val_0001']
    assert 'val #0: image' in text and 'cut short' in text
    code, _, errors = run_tool('analysis_tools/browse_dataset.py', config, '--indices', 9)
    assert code == 2
    assert '--indices must be 0 to' in errors


@pytest.mark.slow
@pytest.mark.parametrize('name', MAKERS)
def test_makers_run_from_the_command_line(name, tmp_path):
    tool = TOOLS / 'dataset_tools' / f'make_tiny_{name}.py'
    command = [sys.executable, str(tool), str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    folder = tmp_path / MAKERS[name]
    assert done.stdout == f'wrote {folder}\n'
    assert len(list(folder.rglob('*.[jp][pn]g'))) == dict(coco=10, clevrtex=40, refcoco=6)[name]
