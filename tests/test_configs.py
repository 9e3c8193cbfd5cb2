"""Every config parses, dumps, reloads; every tiny one trains, tests and predicts through the tools."""

import ast
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from short_runs import run_forked, small_data
from transformers import BertConfig, BertModel

from genseg_mm.config_file import find_config
from genseg_mm.datasets.object_bank import CutOut, default_bank, write_bank
from genseg_mm.launch import check_config
from genseg_mm.launch.auto_timesteps import auto_laws
from genseg_mm.launch.runner_checks import seed_samples

ROOT = Path(__file__).parents[1]
LEAVES = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
TINY = [path for path in LEAVES if '_tiny' in path.stem]


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_config_parses_dumps_and_reloads(path, tmp_path, monkeypatch):
    monkeypatch.setenv('GENSEG_DATA', '/somewhere')
    cfg = Config.fromfile(path)
    assert cfg.default_scope in ('genseg_mm', 'mmseg', 'mmdet')
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == cfg.to_dict()
    if 'train_dataloader' in cfg:  # its samples depend on nothing but their place, under any runner
        assert seed_samples(cfg.train_dataloader) == cfg.train_dataloader
    for scheduler in cfg.get('param_scheduler', []):
        assert scheduler.get('end', 0) <= cfg.train_cfg.max_iters
    if path.parent.name == 'genmask':  # the loss falls where the accuracy does (a mask that shows through its noise)
        accuracy = 'gIoU' if cfg.val_evaluator.get('protocol') == 'reasonseg' else 'oIoU'
        assert cfg.default_hooks.checkpoint.save_best.split('/')[0] == accuracy
        assert cfg.model.mask_head.get('num_steps', 1) == 1
        assert 2 * cfg.train_cfg.val_interval <= cfg.train_cfg.max_iters
    if 'refcoco' in path.stem:
        referring, captions = cfg.train_dataloader.dataset.datasets
        assert referring.data_root == captions.data_root == '/somewhere/coco/'
        assert referring.split == 'train' and cfg.test_dataloader.dataset.test_mode
        assert captions.exclude_images == [referring.split_file]  # no picture of its test splits
        joint = [1, 0] if 'no-generation' in path.stem else [1, 1]
        assert cfg.train_dataloader.sampler.ratio == joint
    if 'hypersim' in path.stem or 'classes' in path.stem:
        roots = [part.data_root for part in cfg.train_dataloader.dataset.datasets]
        assert roots == ['/somewhere/hypersim', '/somewhere/vkitti2']
        assert cfg.train_dataloader.sampler.ratio == [9, 1]
    if 'classes' in path.stem:
        transforms = [own.type for own in cfg.train_dataloader.dataset.datasets[0].pipeline]
        assert transforms.index('genseg_mm.KeepClasses') == 2  # before Resize


TRAINED = [path for path in LEAVES if path.parent.name != 'benchmarks']


@pytest.mark.parametrize('path', TRAINED, ids=lambda path: path.stem)
def test_auto_scale_lr_is_1_at_the_batch_that_the_config_is_for(path):
    cfg = Config.fromfile(path)
    batch = cfg.get('global_batch_size', cfg.train_dataloader.batch_size)
    recipe = 1024 if 'genmask' in path.parts else 8  # on any number of GPUs
    assert batch == recipe or path in TINY
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=batch)
    assert 'accumulative_counts' not in cfg.optim_wrapper


@pytest.mark.parametrize('path', TRAINED, ids=lambda path: path.stem)
def test_the_check_of_a_config_finds_nothing(path):
    cfg = Config.fromfile(path)
    for stage in ('train', 'test'):
        if cfg.get(f'{stage}_cfg') is not None:
            check_config(cfg, str(path), stage)


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_every_config_can_be_named(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (path.stem, path.name, f'{path.parent.name}/{path.name}', f'configs/{path.parent.name}/{path.name}'):
        if name == path.stem and '.' in path.stem:
            continue
        assert Path(find_config(name)).samefile(path), name


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_leaf_says_what_it_is_for(path):
    text = path.read_text()
    docstring = ast.get_docstring(ast.parse(text))
    assert 'Command:' in docstring and 'Hardware:' in docstring and 'Expected' in docstring
    own = path.relative_to(ROOT).as_posix()
    assert own in docstring, f'the command of {own} should name it'
    assert len(text.splitlines()) <= (200 if path.parent.name == 'benchmarks' else 70)


def test_no_config_breaks_the_search_for_laws_that_are_measured():
    """tools/train.py looks through every model for ``a='auto'``; none of ours has it."""
    assert [path.stem for path in TRAINED if auto_laws(Config.fromfile(path))] == []


def test_mixed_training_leaves_out_every_picture_that_any_set_tests_on():
    cfg = Config.fromfile(ROOT / 'configs/genmask/mixed.py')
    parts = cfg.train_dataloader.dataset.datasets
    assert [part.get('exclude_images') for part in parts if 'coco' in part.data_root] == [['unc+umd']] * 5
    referring, captions = cfg.train_dataloader.sampler.ratio
    assert (len(parts), len(referring), sum(referring)) == (6, 5, captions)


def test_objects_without_their_bank_are_an_error_that_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setenv('GENSEG_DATA', str(tmp_path))
    found = [path for path in LEAVES if 'objects' in path.stem and path.parent.name != 'benchmarks']
    for path in found:
        cfg = Config.fromfile(path)
        scope = DefaultScope.overwrite_default_scope(cfg.default_scope)
        with (
            scope,
            pytest.raises(FileNotFoundError, match=r'no bank of objects .*: `python .*prepare_objects.py` makes'),
        ):
            DATASETS.build(cfg.train_dataloader.dataset)
    assert found


def test_basenames_are_unique():
    names = [path.name for path in LEAVES]
    assert len(names) == len(set(names))  # mim finds configs by basename


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    """Tiny copies of all datasets."""
    root = tmp_path_factory.mktemp('data')
    commands = [
        [f'make_tiny_{name}.py', root]
        for name in (
            'captions',  # before refcoco, whose pictures have the same names
            'refcoco',
            'grefcoco',
            'reasonseg',
            'coco',
            'clevrtex',
            'hypersim',
            'virtual_kitti2',
        )
    ]
    commands += [['prepare_hypersim.py', root / 'hypersim', '--out', root / 'hypersim/index.csv']]
    sizes = dict(vocab_size=384, hidden_size=384, intermediate_size=64)
    BertModel(BertConfig(**sizes, num_hidden_layers=1, num_attention_heads=4)).save_pretrained(root / 'bert')
    for tool, *arguments in commands:
        run_forked(f'dataset_tools/{tool}', *arguments, cwd=root)
    return root


@pytest.fixture(scope='module')
def cache_home(tmp_path_factory):
    """A cache folder whose bank has forty drawn objects of each of the groups that configs name."""
    groups = ('household', 'transport-ground', 'animal-mammal', 'food-fruit', 'person', 'face-smiling')
    wide = ('Objects', 'Travel & Places', 'Animals & Nature', 'Food & Drink', 'People & Body', 'Smileys & Emotion')
    objects = [
        CutOut(f'{subgroup} {number}', group, subgroup, (), np.full((8, 8, 4), (6 * number, 90, 99, 255), np.uint8))
        for group, subgroup in zip(wide, groups, strict=True)
        for number in range(40)
    ]
    home = tmp_path_factory.mktemp('cache')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(home))
        default_bank().parent.mkdir(parents=True)
        write_bank(default_bank(), objects, 'drawn')
    return home


def tiny_twins(cfg: Config, data_root: Path) -> dict:
    """Options for a random encoder in place of one of a package."""
    encoder = cfg.model.get('prompt_encoder', {})
    if not str(encoder.get('encoder', {}).get('pretrained_model_name_or_path')).startswith('package:'):
        return {}
    return {
        'model.prompt_encoder.encoder.pretrained_model_name_or_path': str(data_root / 'bert'),
        'model.prompt_encoder.tokenizer': 'byt5',
    }


@pytest.fixture
def one_thread():
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.slow
@pytest.mark.usefixtures('one_thread')
@pytest.mark.parametrize('path', TINY, ids=lambda path: path.stem)
def test_tiny_config_trains_resumes_tests_and_draws(path, tmp_path, data_root, cache_home, monkeypatch):
    monkeypatch.setenv('GENSEG_DATA', str(data_root))
    monkeypatch.setenv('XDG_CACHE_HOME', str(cache_home))
    cfg = Config.fromfile(path)
    twins = tiny_twins(cfg, data_root)
    cfg.merge_from_dict(twins)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        MODELS.build(cfg.model)  # imports what the forks need

    def run(tool, *arguments):
        run_forked(tool, path, *arguments, cwd=tmp_path)

    changes = twins | {'train_dataloader.batch_size': 2}
    if cfg.train_dataloader.sampler.get('group', 1) > 1:
        changes['train_dataloader.sampler.group'] = 2
    options = ['--work-dir', str(tmp_path), '--cfg-options', 'default_hooks.logger.interval=1']
    options += [f'{key}={value}' for key, value in changes.items()]
    evaluated = cfg.get('val_dataloader') is not None
    if evaluated:
        options += small_data(cfg)
    short = ['train_cfg.max_iters=4', 'default_hooks.checkpoint.interval=2']
    run('train.py', *options, *short, *(['train_cfg.val_interval=4'] if evaluated else []))
    logs = [json.loads(line) for line in next(tmp_path.glob('*/vis_data/scalars.json')).open()]
    losses = [entry['loss'] for entry in logs if 'loss' in entry]
    assert len(losses) == 4 and all(0 < loss < 1e4 for loss in losses)

    # Trained on from the middle, in another process and without workers: the same bits.
    tool = runpy.run_path(str(ROOT / 'tools/analysis_tools/check_resume.py'))
    alone = changes | {'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False}
    middle, last = (next(tmp_path.glob(f'iter_{count}*')) for count in (2, 4))  # a file, or a folder of all ranks
    resumed = tool['train'](path, tmp_path / 'resumed', 4, 2, middle, alone)
    found = tool['differences'](last, resumed)
    assert {name.split('.')[0] for name in found} >= {'state_dict', 'optimizer', 'log'}
    assert {name: value for name, value in found.items() if value} == {}

    if not evaluated:  # pretraining
        return
    run('test.py', str(last), *options, 'default_hooks.visualization.test=True')
    metrics = json.loads(max(tmp_path.glob('2*/*.json')).read_text())
    name = 'oIoU' if 'genmask' in str(path.parent) else 'mIoU'
    own_scenes = 'shapes' in path.stem or 'objects' in path.stem
    name = 'seen_mIoU' if 'gen2seg' in str(path.parent) and own_scenes else name
    assert 0 <= metrics[name] <= 100
    assert list(tmp_path.glob('vis/val/iter_4.png')) and list(tmp_path.glob('vis/test/*.png'))
