"""Hypersim and Virtual KITTI 2 together: two processes, a killed run, and what they see."""

import itertools
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from short_runs import run_forked

from genseg_mm.checkpoint import load_weights_only
from genseg_mm.datasets import samplers
from genseg_mm.datasets.samplers import RatioInfiniteSampler
from genseg_mm.registry import DATASETS

FOLDER = Path(__file__).parent  # of mixed_parts.py
ROOT = FOLDER.parents[1]
DATA_TOOLS = ROOT / 'tools' / 'dataset_tools'
NUM_ITERS = 24
SAVED_AT = 8  # the iteration after whose checkpoint the run is killed


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('data')
    for name in ('hypersim', 'virtual_kitti2'):
        tool = runpy.run_path(str(DATA_TOOLS / f'make_tiny_{name}.py'))[f'make_tiny_{name}']
        tool(root / name.replace('virtual_kitti2', 'vkitti2'))
    prepare = runpy.run_path(str(DATA_TOOLS / 'prepare_hypersim.py'))['prepare_hypersim']
    prepare(root / 'hypersim', root / 'hypersim' / 'index.csv')
    return root


def base(data: Path, name: str) -> Config:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('GENSEG_DATA', str(data))
        cfg = Config.fromfile(ROOT / 'configs' / '_base_' / 'datasets' / name)
    parts = cfg.train_dataloader.dataset.datasets
    parts[1].update(scenes=['Scene01', 'Scene02'], variations=['fog', 'morning'])
    return cfg


@pytest.fixture(scope='module')
def config(data, tmp_path_factory) -> Path:
    """The base for Stable Diffusion at a tenth of the size, with the tiny UNet."""
    folder = tmp_path_factory.mktemp('config')
    runtime, model = (f'{ROOT}/configs/_base_/{name}.py' for name in ('default_runtime', 'models/gen2seg_unet_tiny'))
    (folder / 'bases.py').write_text(f'_base_ = [{runtime!r}, {model!r}]\n')
    cfg = Config.fromfile(folder / 'bases.py')
    cfg.merge_from_dict(base(data, 'hypersim_vkitti2_sd.py').to_dict())
    hypersim, vkitti2 = cfg.train_dataloader.dataset.datasets
    hypersim.pipeline[2].scale = (64, 48)
    vkitti2.pipeline[2].crop_size = (48, 80)
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.model.colorer.config.block_out_channels = (8, 8, 16, 16)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=NUM_ITERS)
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint.interval = SAVED_AT
    cfg.custom_imports = dict(imports=['mixed_parts'], allow_failed_imports=False)
    cfg.custom_hooks = [dict(type='mmengine.NoteSourcesHook')]
    cfg.dump(folder / 'mixed.py')
    return folder / 'mixed.py'


def start(config: Path, work_dir: Path, *options: str) -> subprocess.Popen:
    environment = {**os.environ, 'PYTHONPATH': f'{FOLDER}{os.pathsep}{ROOT}', 'PYTHON': sys.executable}
    environment.setdefault('OMP_NUM_THREADS', '1')
    command = [ROOT / 'tools' / 'dist_train.sh', config, 2, '--work-dir', work_dir, *options]
    return subprocess.Popen(
        list(map(str, command)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def sources(work_dir: Path, rank: int) -> dict[int, str]:
    """The source of every iteration; a repeated one must have been the same."""
    found = {}
    for line in (work_dir / f'sources{rank}.txt').read_text().splitlines():
        number, first, second, sizes = line.split(' ', 3)
        assert first == second, 'a batch has one source'
        assert sizes == {'hypersim': '[(48, 64)]', 'vkitti2': '[(48, 80)]'}[first]
        assert found.setdefault(int(number), first) == first
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='the kernel of Linux ends the processes of torchrun')
def test_a_killed_run_of_two_processes_ends_with_the_same_weights(config, tmp_path, monkeypatch):
    plain, killed = tmp_path / 'plain', tmp_path / 'killed'
    plain.mkdir()
    run_forked('train.py', config, '--work-dir', plain, cwd=plain, processes=2)
    # The other run has workers: neither they nor the restart change what is drawn.
    options = ['--cfg-options', 'train_dataloader.num_workers=1']
    process = start(config, killed, *options)
    deadline = time.monotonic() + 200
    while not (killed / 'last_checkpoint').exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.002)
    process.kill()
    process.communicate(timeout=30)
    assert not (killed / f'iter_{NUM_ITERS}.pth').exists()
    words = ('--work-dir', killed, '--resume', *options)
    output = run_forked('train.py', config, *words, cwd=killed, processes=2)
    assert 'resumed epoch: 0, iter: ' in output and 'iter: 0' not in output

    weights, resumed = (
        load_weights_only(str(folder / f'iter_{NUM_ITERS}.pth'))['state_dict'] for folder in (plain, killed)
    )
    assert weights.keys() == resumed.keys()
    assert [name for name, value in weights.items() if not torch.equal(value, resumed[name])] == []

    drawn = sources(plain, 0)
    assert sources(plain, 1) == drawn == sources(killed, 0) == sources(killed, 1)
    assert sorted(drawn) == list(range(NUM_ITERS))
    cfg = Config.fromfile(config).train_dataloader
    monkeypatch.setattr(samplers, 'get_dist_info', lambda: (0, 2))
    dataset = DATASETS.build(cfg.dataset)
    sampler = RatioInfiniteSampler(dataset, ratio=[9, 1], group=2, seed=0)
    stream = list(itertools.islice(sampler, 2 * NUM_ITERS))[::2]
    first_of_vkitti2 = len(dataset.datasets[0])
    assert list(drawn.values()) == ['vkitti2' if index >= first_of_vkitti2 else 'hypersim' for index in stream]
    assert 1 <= list(drawn.values()).count('vkitti2') <= 6  # about one in ten


@pytest.mark.parametrize(
    ('name', 'hypersim', 'vkitti2'),
    [
        ('hypersim_vkitti2_sd.py', ((640, 480), (480, 640)), (368, 1024)),
        ('hypersim_vkitti2_224.py', ((224, 224), (224, 224)), (224, 224)),
    ],
)
def test_bases_have_the_sizes_and_the_mix_of_the_paper(data, tmp_path, name, hypersim, vkitti2):
    cfg = base(data, name).train_dataloader
    assert cfg.sampler == dict(type='genseg_mm.RatioInfiniteSampler', ratio=[9, 1], group=2)
    assert cfg.batch_size == cfg.sampler.group == 2
    assert cfg.dataset.datasets[0].pipeline[2].scale == hypersim[0]
    make = runpy.run_path(str(DATA_TOOLS / 'make_tiny_virtual_kitti2.py'))['make_tiny_virtual_kitti2']
    root = make(tmp_path, (375, 1242), 2, ['Scene01'], ['fog'])
    cfg.dataset.datasets[1].update(data_root=str(root), scenes=['Scene01'], variations=['fog'])
    dataset = DATASETS.build(cfg.dataset)
    assert [len(part) for part in dataset.datasets] == [12, 4]
    sizes = {}
    for index, key in ((0, 'hypersim'), (12, 'vkitti2')):
        item = dataset[index]
        ids = item['data_samples'].gt_instance_map.data
        assert tuple(item['inputs'].shape) == (3, *ids.shape[1:])
        assert item['data_samples'].ignore_background is (key == 'vkitti2')
        assert ids.max() > 0
        sizes[key] = tuple(ids.shape[1:])
    assert sizes == dict(hypersim=hypersim[1], vkitti2=vkitti2)


def test_a_missing_index_says_how_to_make_it(data, tmp_path):
    cfg = base(data, 'hypersim_vkitti2_sd.py').train_dataloader.dataset.datasets[0]
    with pytest.raises(FileNotFoundError, match='prepare_hypersim.py .* --out .*other.csv'):
        DATASETS.build({**cfg, 'index_file': 'other.csv'})
