"""Every code block of the documents runs from its own text, and what comes out is looked at."""

import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from code_blocks import LANGUAGES, ROOT, CodeBlock, code_blocks, documents, needs_of
from made_files import STREET_SIZE, make_data, make_hub, make_scene, make_street
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from PIL import Image
from shell_commands import make_place

import genseg_mm  # noqa: F401  ('mmseg::' in _base_)
from genseg_mm.functional.instance_coloring import instance_coloring_loss
from genseg_mm.inferencers import GenSegInferencer

BLOCKS = {path: code_blocks(path) for path in documents()}
ALL = [block for blocks in BLOCKS.values() for block in blocks]


def of(kind: str) -> list[CodeBlock]:
    return [block for block in ALL if block.kind == kind]


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return (mask & truth).sum() / (mask | truth).sum()


def is_picture(array: np.ndarray) -> bool:
    """Neither black nor flat."""
    return array.mean() > 15 and array.reshape(-1, 3).std(0).max() > 10


# What has to come out of a python block: the first of these that its source contains


def check_street(namespace: dict, calls: list, place: Path, truth: dict) -> None:
    result = namespace['result']
    assert result['masks'].shape == (2, *STREET_SIZE) and result['scores'].shape == (2,)
    assert result['color_map'].shape == (*STREET_SIZE, 3)
    assert result['color_map'].min() >= 0 and result['color_map'].max() <= 255
    assert result['color_map'].std() > 1  # of a random model: hardly a picture
    assert result['masks'].any((1, 2)).all()


def check_trained_street(namespace: dict, calls: list, place: Path, truth: dict) -> None:
    check_street(namespace, calls, place, truth)
    result = namespace['result']
    overlaps = [iou(*pair) for pair in zip(result['masks'], truth['street'], strict=True)]
    assert min(overlaps) > 0.6, overlaps
    assert is_picture(result['color_map']) and np.ptp(result['color_map']) > 200
    assert is_picture(np.asarray(Image.open(place / 'out/vis/street.png')))
    saved = np.asarray(Image.open(place / 'out/preds/street.png')).astype(float)
    assert np.abs(saved - result['color_map']).max() <= 0.5


def check_genmask(namespace: dict, calls: list, place: Path, truth: dict) -> None:
    segmented, pictures = calls[-2:]
    (mask,) = segmented['predictions'][0]['masks']
    assert iou(mask, truth['scene']) > 0.8
    red = [one['image'] for one in pictures['predictions']]
    assert len(red) == 4 and all(map(is_picture, red))
    text = pictures['predictions'][0]['text'].replace('red', 'blue')
    others = namespace['inferencer'](texts=text, task='generate', num_images=4)['predictions']
    warmth = [
        np.mean([one[..., 0].astype(float) - one[..., 2] for one in own])
        for own in (red, [one['image'] for one in others])
    ]
    assert warmth[0] > warmth[1] + 5, warmth


def check_functional(namespace: dict, calls: list, place: Path, truth: dict) -> None:
    given = truth['functional']
    terms = instance_coloring_loss(given['colors'], given['ids'])
    assert torch.equal(namespace['loss'], terms[0] + terms[1] + terms[2]) and namespace['loss'] > 0
    assert torch.equal(namespace['masks'], given['masks'])


def check_saved(namespace: dict, calls: list, place: Path, truth: dict) -> None:
    saved, opened = (namespace[key].state_dict() for key in ('model', 'opened'))
    assert saved.keys() == opened.keys() and all(torch.equal(own, opened[key]) for key, own in saved.items())
    assert 'mIoU' in (place / 'my-colorer/README.md').read_text()


def check_squares(namespace: dict, calls: list, place: Path, truth: dict) -> None:
    assert len(list((place / 'squares').glob('*.png'))) == 6
    assert set(np.unique(np.asarray(Image.open(place / 'squares/2_ids.png')))) == {0, 1, 2}


def check_first(namespace: dict, calls: list, place: Path, truth: dict) -> None:
    overlaps = [iou(*pair) for pair in zip(namespace['result']['masks'], truth['street'], strict=True)]
    assert min(overlaps) > 0.6, overlaps
    assert iou(namespace['found']['masks'][0], truth['scene']) > 0.8


def check_prompts(namespace: dict, calls: list, place: Path, truth: dict) -> None:
    first, second = (namespace[name]['masks'] for name in ('first', 'second'))
    assert (first[0] == second[0]).all()
    assert min(iou(*pair) for pair in zip(second, truth['street'], strict=True)) > 0.6


PYTHON = {
    'save_pretrained': check_saved,
    'second = inferencer.prompt(': check_prompts,
    "Path('squares')": check_squares,
    "found = inferencer('scene.png'": check_first,
    "out_dir='out'": check_trained_street,
    "'street.jpg'": check_street,
    "task='generate'": check_genmask,
    'instance_coloring_loss': check_functional,
}


def chosen(table: dict[str, Callable], block: CodeBlock) -> Callable:
    """The check of a block."""
    found = [check for key, check in table.items() if key in block.source]
    assert found, f'{block.where}: a {block.kind} block that no test runs:\n{block.source}'
    return found[0]


def functional_inputs() -> dict:
    """Two flat objects: the tensors of the forms that the block names."""
    ids = torch.zeros(48, 64, dtype=torch.long)
    ids[8:30, 5:25], ids[10:40, 35:60] = 1, 2
    palette = torch.tensor([[0.0, 0, 0], [250, 20, 20], [20, 40, 250]])
    color_map = palette[ids].permute(2, 0, 1)
    noise = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    return dict(
        colors=color_map * 0.8 + noise * 40,
        ids=ids.expand(2, -1, -1),
        color_map=color_map,
        points=torch.tensor([[12.0, 20], [45, 20]]),
        masks=torch.stack([ids == 1, ids == 2]),
    )


@pytest.fixture(scope='module')
def place(tmp_path_factory) -> Path:
    """A folder as a reader's, with the documents' pictures and tiny twins of the released weights."""
    folder = make_place(tmp_path_factory.mktemp('place'), ROOT)
    make_hub(folder)
    return folder


def test_every_block_says_what_it_is_and_has_a_test():
    assert len(ALL) >= 15
    for block in ALL:
        assert block.language in LANGUAGES, f'{block.where}: expected a language of {LANGUAGES}'
        if block.kind == 'python':
            chosen(PYTHON, block)
        elif block.kind == 'config':
            chosen(CONFIGS, block)
        elif block.kind == 'file':
            others = [one.source for one in ALL if one.document == block.document and one != block]
            assert Path(block.file).stem in '\n'.join(others), f'{block.where}: nothing uses {block.file}'
        elif block.kind == 'text':
            known = 'shipped GenMask held-out scenes' in block.source or is_layout(block)
            assert known, f'{block.where}: checked by nothing'
        for line in block.source.splitlines():
            hub = "'reachomk/" in line and 'from_pretrained(' in line
            if block.kind == 'python':
                assert ('download' in needs_of(line)) == hub, f'{block.where}: {line}'
    assert {'bash', 'text', 'python', 'config', 'file'} == {block.kind for block in ALL}


@pytest.mark.parametrize(
    'document',
    [path for path, blocks in BLOCKS.items() if any(one.kind == 'python' for one in blocks)],
    ids=lambda path: path.parent.name,
)
def test_python_blocks_run_in_order(document, place, monkeypatch):
    truth = dict(
        street=make_street(place / 'street.jpg'), scene=make_scene(place / 'scene.png'), functional=functional_inputs()
    )
    calls, call = [], GenSegInferencer.__call__

    def recorded(self, *args, **kwargs):
        calls.append(call(self, *args, **kwargs))
        return calls[-1]

    monkeypatch.setattr(GenSegInferencer, '__call__', recorded)
    monkeypatch.chdir(place)
    given = {key: value for key, value in truth['functional'].items() if key != 'masks'}
    namespace = dict(given, __name__='document')
    for block in BLOCKS[document]:
        if block.kind == 'python':
            code = compile('\n' * (block.line - 1) + block.source, str(document), 'exec')
            exec(code, namespace)
            chosen(PYTHON, block)(namespace, calls, place, truth)


# Configs: what they say stays, data and lengths become small


def coco_data(place: Path) -> None:
    """data/coco, as the block names it."""
    tool = runpy.run_path(str(ROOT / 'tools/dataset_tools/make_tiny_coco.py'))
    tool['make_tiny_coco'](place / 'data/coco')


def own_data(cfg: Config) -> None:
    """Scenes in place of the data of the base."""
    pack = [dict(type='genseg_mm.LoadInstanceMap'), dict(type='genseg_mm.PackGenSegInputs')]
    shapes = dict(type='genseg_mm.ShapesDataset', task='instance', num_scenes=4, pipeline=pack)
    for loader, settings in ((cfg.train_dataloader, {}), (cfg.val_dataloader, dict(split='test', test_mode=True))):
        loader.dataset = dict(shapes, **settings)
    cfg.val_evaluator = dict(type='genseg_mm.PointPromptMetric')
    cfg.model.data_preprocessor.size = (64, 64)


CONFIGS = {'CocoInstanceDataset': lambda cfg, place: coco_data(place), 'pspnet_r18': lambda cfg, place: own_data(cfg)}


@pytest.mark.slow
@pytest.mark.parametrize('block', of('config'), ids=lambda block: block.where)
def test_configs_train_and_validate_in_mmsegs_runner(block, place, tmp_path, monkeypatch):
    import mmseg.models  # noqa: F401  (what mmseg's tools do)

    monkeypatch.chdir(place)
    assert '...' not in block.source and 'download' in needs_of(block.source)
    (tmp_path / 'config.py').write_text(block.source)
    cfg = Config.fromfile(tmp_path / 'config.py')
    assert cfg.model.decode_head.type == 'genseg_mm.InstanceColoringHead'
    chosen(CONFIGS, block)(cfg, place)
    cfg.model.pretrained = cfg.model.backbone.init_cfg = None
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(batch_size=1, num_workers=0, persistent_workers=False)
    cfg.merge_from_dict(dict(log_level='WARNING', work_dir=str(tmp_path), test_dataloader=None))
    cfg.merge_from_dict(dict(test_cfg=None, test_evaluator=None, default_hooks=dict(logger=dict(interval=1))))
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    runner = Runner.from_cfg(cfg)
    runner.model = revert_sync_batchnorm(runner.model)
    before = [value.detach().clone() for value in runner.model.decode_head.parameters()]
    with DefaultScope.overwrite_default_scope('mmseg'):
        runner.train()
        metrics = runner.val_loop.run()
    after = list(runner.model.decode_head.parameters())
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert all(value.isfinite().all() for value in after)
    name = next(name for name in metrics if name.endswith('mIoU'))
    assert 0 < metrics[name] < 100 and metrics['num_prompts'] >= 5


# Folders


def is_layout(block: CodeBlock) -> bool:
    """Whether a listing is that of a folder: ``data/...`` and, indented, paths below it."""
    return block.kind == 'text' and block.source.startswith('data/')


def test_layouts_are_those_that_are_read(tmp_path):
    """Each path of a listing is in the tiny copies, which the datasets read."""
    make_data(tmp_path / 'data')
    listings = [block for block in ALL if is_layout(block)]
    assert len(listings) >= 11
    for block in listings:
        root, *paths = block.source.splitlines()
        assert paths, block.where
        for path in paths:
            assert path.startswith('  ') and next((tmp_path / root).glob(path.strip()), None), f'{block.where}: {path}'


# Listings


def test_listings_are_as_the_tool_prints_them():
    """The numbers of the shipped models are measured by the slow tests; here they are those of the tables."""
    tables = {name: (ROOT / f'configs/{name}/README.md').read_text().splitlines() for name in ('gen2seg', 'genmask')}

    def row(paper: str, start: str) -> str:
        return next(line for line in tables[paper] if start in line)

    objects, shapes = (block.source.splitlines() for block in of('text') if 'shipped GenMask' in block.source)
    assert objects[-1].startswith('times: ') and shapes[-1].startswith('times: ')
    numbers = [[word for word in line.split() if word.replace('.', '').isdigit()] for line in objects]
    assert f'{numbers[0][0]} (mIoU {numbers[0][1]})' in row('genmask', 'oIoU, new scenes, all kinds')
    assert f'{numbers[1][0]} (mIoU {numbers[1][1]})' in row('genmask', 'oIoU, new scenes in new words')
    assert numbers[2][0] in row('genmask', 'N-acc / T-acc')
    after = tables['gen2seg'][tables['gen2seg'].index(row('gen2seg', '**The shipped one** (`gen2seg_unet_objects')) :]
    assert f'| {numbers[3][0]} | {numbers[4][0]} |' in next(line for line in after if line.startswith('| mIoU'))
    oiou, miou = shapes[0].split()[-3], shapes[0].split()[-1]
    assert f'| {oiou} (mIoU {miou}) |' in row('genmask', 'genmask_sana_shapes.safetensors')
