"""verify_dataset and browse_dataset on the referring datasets, and the tools that make tiny ones."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from genseg_mm.datasets import GRefCOCODataset, ReasonSegDataset, RefCOCODataset
from genseg_mm.datasets.published_counts import difference, expected_items

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools'
CONFIG = """
coco, top = '{root}/coco', '{root}'
pipeline = [
    dict(type='genseg_mm.LoadImage'),
    dict(type='genseg_mm.LoadReferringMask'),
    dict(type='genseg_mm.RandomReferringFlip', prob=1.0),
    dict(type='mmcv.Resize', scale=(96, 96), keep_ratio=False),
    dict(type='genseg_mm.TextPrompt', lower=False),
    dict(type='genseg_mm.PackGenSegInputs'),
]
test_pipeline = [pipeline[0], pipeline[3], pipeline[1], *pipeline[4:]]
train_dataloader = dict(
    dataset=dict(
        type='genseg_mm.MixedDataset',
        datasets=[
            dict(
                type='genseg_mm.RefCOCODataset',
                data_root=coco,
                ann_file=name + '/instances.json',
                split_file=name + '/' + refs,
                exclude_images=exclude,
                pipeline=pipeline,
            )
            for name, refs, exclude in (
                ('refcoco', 'refs(unc).p', 'unc+umd'),
                ('refcoco+', 'refs(unc).p', None),
                ('refcocog', 'refs(google).p', None),
            )
        ]
        + [
            dict(type='genseg_mm.GRefCOCODataset', data_root=coco, pipeline=pipeline),
            dict(type='genseg_mm.ReasonSegDataset', data_root=top, pipeline=pipeline),
        ],
    )
)
val_dataloader = dict(
    dataset=dict(
        type='genseg_mm.GRefCOCODataset', data_root=coco, split='val', test_mode=True, pipeline=test_pipeline
    )
)
test_dataloader = dict(
    dataset=dict(
        type='genseg_mm.ReasonSegDataset', data_root=top, split='test', test_mode=True, pipeline=test_pipeline
    )
)
"""


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('referring')
    for name, folder in (('grefcoco', root / 'coco'), ('reasonseg', root)):
        tool = runpy.run_path(str(TOOLS / 'dataset_tools' / f'make_tiny_{name}.py'))
        tool[f'make_tiny_{name}'](folder)
    return root


@pytest.fixture
def config(made, tmp_path) -> Path:
    """A config over a copy of the data that the test may damage."""
    shutil.copytree(made, tmp_path / 'data')
    path = tmp_path / 'referring.py'
    path.write_text(CONFIG.replace('{root}', str(tmp_path / 'data')))
    return path


def test_verify(config, tmp_path, run_tool):
    out = tmp_path / 'report.json'
    assert run_tool('dataset_tools/verify_dataset.py', config, '--json', out)[0] == 0
    reports = {own['dataset']: own for own in json.loads(out.read_text())['datasets']}
    assert [own['items'] for own in reports.values()] == [5, 6, 9, 6, 3, 6, 2]
    assert [own['no_instance'] for own in reports.values()] == [0, 0, 0, 1, 0, 2, 1]
    expected = [own['expected'] for own in reports.values()]
    assert expected == [42_404, 42_278, 44_822, None, 239, None, 779]
    notes = [own['notes'] for own in reports.values()]
    assert notes[0] == [
        '42399 references fewer than the 42404 of the complete dataset (exclude_images leaves some out)'
    ]
    assert notes[2] == ['44813 references fewer than the 44822 of the complete dataset']
    polygons = 'annotations dropped: polygons of fewer than 6 or an odd number of coordinates'
    assert notes[3] == [
        f'1 {polygons}',
        '1 annotations dropped: crowd regions',
        '16991 pictures fewer than the 16994 of the complete dataset',
    ]
    assert notes[5] == ['1499 pictures fewer than the 1500 of the complete dataset']
    assert notes[6] == ['777 pictures fewer than the 779 of the complete dataset']


def test_verify_says_what_captions_are_left_out(tmp_path, run_tool):
    maker = runpy.run_path(str(TOOLS / 'dataset_tools' / 'make_tiny_captions.py'))
    root = maker['make_tiny_captions'](tmp_path / 'data') / 'coco'
    path = root / 'annotations' / 'captions_val2017.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['caption'] = ' '  # the only one of its picture
    path.write_text(json.dumps(content))
    config = tmp_path / 'captions.py'
    config.write_text(
        f"val_dataloader = dict(dataset=dict(type='genseg_mm.CocoCaptionsDataset', data_root='{root}', test_mode=True,"
        " ann_file='annotations/captions_val2017.json', data_prefix=dict(img_path='val2017')))"
    )
    code, printed, _ = run_tool('dataset_tools/verify_dataset.py', config)
    assert code == 0
    assert 'val: 1 left out: empty texts' in printed
    assert 'val: 1 left out: pictures without a caption' in printed


def test_verify_names_bad_files(config, tmp_path, run_tool):
    picture = tmp_path / 'data' / 'ReasonSeg' / 'test' / '3001.jpg'
    picture.write_bytes(picture.read_bytes()[:300])
    tool = 'dataset_tools/verify_dataset.py'
    code, printed, _ = run_tool(tool, config, '--split', 'test')
    assert code == 1 and f'test: unreadable: {picture}: image {picture} is cut short' in printed


@pytest.mark.parametrize('stage', ['pipeline', 'raw'])
def test_browse_draws_all(config, tmp_path, stage, run_tool):
    out = tmp_path / stage
    tool = 'analysis_tools/browse_dataset.py'
    assert run_tool(tool, config, '--out-dir', out, '--stage', stage, '--panel-size', 96)[0] == 0
    sizes = {path.stem: Image.open(path).size for path in out.glob('*.png')}
    train = [f'train_{part}_0001' for part in range(1, 6)] + ['train_3_0002']  # 8 items a page
    assert sorted(sizes) == ['test_0001', *sorted(train), 'val_0001']
    # Two panels of 96 with a gap of 4 around them; a row is a panel, a line of 19 and a gap, a title of 19 above
    assert {width for width, _ in sizes.values()} == {2 * 96 + 3 * 4}
    if stage == 'pipeline':
        assert sizes['test_0001'][1] == 19 + 2 * (96 + 19 + 4)
        assert sizes['train_3_0001'][1] == 19 + 8 * (96 + 19 + 4)


def test_expected_numbers(made):
    coco, top = str(made / 'coco'), str(made)

    def refer(name, by, split, **kwargs):
        files = dict(ann_file=f'{name}/instances.json', split_file=f'{name}/refs({by}).p')
        dataset = RefCOCODataset(coco, split=split, serialize_data=False, **files, **kwargs)
        return expected_items(dataset)

    assert refer('refcoco', 'unc', 'val', test_mode=True) == 10_834
    assert refer('refcoco', 'unc', 'val', test_mode=True, sentence='first') == 3_811
    assert refer('refcoco', 'unc', 'test', test_mode=True) == 5_657 + 5_095
    assert refer('refcoco+', 'unc', 'test', test_mode=True) == 5_726 + 4_889
    assert refer('refcocog', 'umd', 'test', test_mode=True) == 9_602
    assert refer('refcocog', 'google', 'val', test_mode=True) == 9_536
    assert refer('refcocog', 'google', 'train') == 44_822
    assert expected_items(ReasonSegDataset(top, split='train_val')) == 239 + 200
    assert expected_items(ReasonSegDataset(top, split='test', sentence='all', test_mode=True)) is None
    assert difference(GRefCOCODataset(coco, split='testA')) == (
        '749 pictures fewer than the 750 of the complete dataset'
    )
    assert difference(RefCOCODataset(coco, indices=2)) is None


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'folder', 'num_pictures'), [('grefcoco', 'coco', 6), ('reasonseg', '', 7)])
def test_makers_run_from_the_command_line(name, folder, num_pictures, tmp_path):
    tool = TOOLS / 'dataset_tools' / f'make_tiny_{name}.py'
    done = subprocess.run([sys.executable, str(tool), str(tmp_path)], check=True, capture_output=True, text=True)
    assert done.stdout == f'wrote {tmp_path / folder}\n'
    assert len(list(tmp_path.rglob('*.jpg'))) == num_pictures
