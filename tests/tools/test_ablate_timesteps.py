"""The timestep ablation: equal steps, schedules, what a run logs, tables from made-up results, runs that are read."""

import json
import sys
from itertools import islice
from pathlib import Path

import ablate_timesteps
import pytest
from mmengine.config import Config
from torch.utils.data import ConcatDataset

from genseg_mm import launch
from genseg_mm.datasets import RatioInfiniteSampler
from genseg_mm.launch import training_cells

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / 'configs/genmask/genmask_sana_shapes_tiny.py')


@pytest.fixture
def args(tmp_path, monkeypatch):
    """Parsed command line of a short ablation."""
    monkeypatch.setattr(sys, 'argv', ['tool', '--iters', '40', '--work-dir', str(tmp_path)])
    return ablate_timesteps.parse_args()


@pytest.mark.parametrize('seed', [0, 1, 7])
def test_a_joint_run_ends_with_its_last_mask_batch(seed):
    iters = ablate_timesteps.joint_iterations(50, batch_size=4, seed=seed)
    parts = ConcatDataset([range(30), range(20)])  # other sizes, the same draws
    sampler = RatioInfiniteSampler(parts, ratio=[1, 1], group=4, seed=seed)
    is_mask = [index < 30 for index in islice(sampler, 0, 4 * iters, 4)]
    assert len(is_mask) == iters and sum(is_mask) == 50 and is_mask[-1]
    assert 70 < iters < 140


def test_schedules_are_stretched_and_the_warm_up_is_kept():
    schedulers = [dict(type='LinearLR', begin=0, end=100), dict(type='CosineAnnealingLR', begin=940, end=2350)]
    names = [f'param_scheduler.{key}' for key in ('0.end', '1.begin', '1.end')]
    for new, expected in ((800, (100, 320, 800)), (200, (50, 80, 200)), (2, (1, 1, 2))):
        options = ablate_timesteps.schedule_options(schedulers, 2350, new)
        assert options == dict(zip(names, expected, strict=True))


def configured(args, law, joint, seed):
    """The config as tools/train.py makes it from the options of a run."""
    cfg = Config.fromfile(CONFIG)
    options = ablate_timesteps.run_options(cfg, args, law, joint, seed)
    parser = launch.ToolParser()
    launch.add_common_arguments(parser)
    given = [f'{key}={value}'.replace(' ', '') for key, value in options.items()]
    own = parser.parse_args(['--cfg-options', *given]).cfg_options
    launch.config.override_config(cfg, own)
    return cfg


def test_the_options_make_the_config_of_a_run(args):
    cfg = configured(args, 'always 1', False, 1)
    timesteps = cfg.model.mask_head.timesteps
    assert timesteps.mask == dict(type='genseg_mm.UniformTimesteps', low=1.0, high=1.0)  # no a
    assert timesteps.image == dict(type='genseg_mm.LogitNormalTimesteps')
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (40, 10)
    assert cfg.train_dataloader.sampler == dict(type='genseg_mm.RatioInfiniteSampler', ratio=[1, 0], group=16, seed=1)
    assert cfg.train_dataloader.batch_size == 16 and cfg.randomness.seed == 1
    assert cfg.model.mask_head.num_steps == 1
    own = configured(args, 'pixel BCE', False, 1)
    head = dict(cfg.model.mask_head, timesteps=Config.fromfile(CONFIG).model.mask_head.timesteps)
    head.update(type='genseg_mm.BCEMaskHead', through='decoder', scale=5.0, threshold=0.45)
    assert own.model.mask_head == head  # the law of the config
    assert configured(args, 'no image condition', False, 1).model.image_condition is False


def test_joint_runs_have_the_mask_steps_or_the_iterations_of_the_others(args):
    cfg = configured(args, 'long-tail a=0.5', True, 0)
    assert cfg.train_dataloader.sampler.ratio == [1, 1]
    assert cfg.model.mask_head.timesteps.mask.a == 0.5
    assert cfg.train_cfg.max_iters == ablate_timesteps.joint_iterations(40, 16, 0) > 60
    args.equal = 'iterations'
    assert configured(args, 'uniform', True, 0).train_cfg.max_iters == 40


def test_a_training_set_of_one_part_is_refused(args):
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='ShapesDataset'))))
    with pytest.raises(ValueError, match='MixedDataset of two parts.*but got a ShapesDataset'):
        ablate_timesteps.run_options(cfg, args, 'uniform', True, 0)


def write_log(folder: Path, losses: list[float], val: bool = True) -> None:
    """A log as the trainer writes it; a loss of 0 is an image step."""
    lines = [
        dict(loss=loss or 5.0, step=step, **(dict(loss_mask=loss) if loss else dict(loss_image=5.0)))
        for step, loss in enumerate(losses, 1)
    ]
    if val:
        scores = {'oIoU': 31.5, 'oIoU/scenes': 40.0, 'mIoU': 29.25, 'Pr@0.5': 12.0}
        lines.insert(3, dict(scores, oIoU=33.0, step=3))
        lines.append(dict(scores, step=len(losses)))
    path = folder / '20260101_000000/vis_data/scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, lines)) + '\n')


def test_the_log_of_a_run(tmp_path):
    write_log(tmp_path, [10.0, 9.0, 0.0, 8.0, 7.0, 6.0, 0.0, 0.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    result = ablate_timesteps.read_scalars(tmp_path)
    scores = {'oIoU/scenes': 40.0}
    curve = [dict(step=3, mask_loss=9.5, oIoU=33.0, **scores), dict(step=13, mask_loss=4.5, oIoU=31.5, **scores)]
    assert result == dict(oIoU=31.5, mIoU=29.25, mask_loss=1.5, mask_steps=10, image_steps=3, curve=curve)


def test_an_accuracy_that_falls_under_a_falling_loss_is_named():
    def of(*points):
        curve = [dict(step=100 * place, oIoU=own, mask_loss=loss) for place, (own, loss) in enumerate(points, 1)]
        return dict(law='long-tail', joint=False, seed=0, curve=curve)

    falling, rising, diverging = of((10, 0.5), (18, 0.3), (12, 0.1)), of((10, 0.5), (18, 0.3)), of((18, 0.3), (9, 0.4))
    assert ablate_timesteps.curve_remarks([falling, rising, diverging, of((10, 0.5))]) == [
        'long-tail, without generation, seed 0: oIoU falls from 18.0 at step 200 to 12.0, while the loss falls from '
        '0.300 to 0.100'
    ]
    assert '| long-tail, without generation, seed 0 | 10.0 / 0.500 | 18.0 / 0.300 |  |' in (
        ablate_timesteps.curve_table([rising, falling])
    )


def test_an_unfinished_log_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='scalars.json, but there is none'):
        ablate_timesteps.read_scalars(tmp_path)
    write_log(tmp_path, [1.0, 2.0], val=False)
    with pytest.raises(ValueError, match='but got 2 and 0 lines'):
        ablate_timesteps.read_scalars(tmp_path)


def made_up_runs() -> list[dict]:
    scores = {
        ('long-tail', False): [(50.0, 0.5), (54.0, 0.7)],
        ('long-tail', True): [(49.0, 0.6), (51.0, 0.6)],
        ('logit-normal', False): [(5.0, 0.1), (7.0, 0.3)],
        ('logit-normal', True): [(4.0, 0.2), (4.0, 0.2)],
    }
    return [
        dict(law=law, joint=joint, seed=seed, oIoU=oiou, mIoU=oiou - 1, mask_loss=loss, mask_steps=400,
             image_steps=(380 + 10 * seed) * joint, cpu_seconds=60.0,
             curve=[dict(step=400, oIoU=oiou, mask_loss=loss)])
        for (law, joint), values in scores.items()
        for seed, (oiou, loss) in enumerate(values)
    ]  # fmt: skip


def test_the_table_of_made_up_runs():
    rows = ablate_timesteps.summarise(made_up_runs())
    assert [row['seeds'] for row in rows] == [[0, 1]] * 4
    lines = ablate_timesteps.markdown(rows, 'Heading').splitlines()
    assert lines[0] == 'Heading'
    assert lines[4:8] == [
        '| long-tail | no | 52.0 (50.0 to 54.0) | 51.0 (49.0 to 53.0) | 0.600 (0.500 to 0.700) | 400 | 0 | 60 |',
        '| long-tail | 1:1 | 50.0 (49.0 to 51.0) | 49.0 (48.0 to 50.0) | 0.600 (0.600 to 0.600) | 400 | 380 to 390 | '
        '60 |',
        '| logit-normal | no | 6.0 (5.0 to 7.0) | 5.0 (4.0 to 6.0) | 0.200 (0.100 to 0.300) | 400 | 0 | 60 |',
        '| logit-normal | 1:1 | 4.0 (4.0 to 4.0) | 3.0 (3.0 to 3.0) | 0.200 (0.200 to 0.200) | 400 | 380 to 390 | 60 |',
    ]
    assert lines[9].startswith(
        '- without generation: the lowest training loss, 0.200, is that of logit-normal with oIoU 6.0; the best oIoU, '
        '52.0, is that of long-tail with loss 0.600.'
    )
    assert '+1.00' in lines[9]
    # A loss of another kind has no place in the ranking.
    other = [dict(run, law='pixel BCE', mask_loss=0.01, oIoU=99.0) for run in made_up_runs()[:2]]
    assert ablate_timesteps.loss_remarks(ablate_timesteps.summarise([*made_up_runs(), *other])) == (
        ablate_timesteps.loss_remarks(rows)
    )


def test_one_seed_has_no_range():
    rows = ablate_timesteps.summarise(made_up_runs()[:1])
    assert '| long-tail | no | 50.0 | 49.0 | 0.500 | 400 | 0 | 60 |' in ablate_timesteps.markdown(rows, '')


def test_rank_correlation():
    assert ablate_timesteps.rank_correlation([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert ablate_timesteps.rank_correlation([1, 2, 3], [3, 2, -50]) == pytest.approx(-1)
    # Ranks 0 1 2 3 against 1 0 3 2: 1 - 6 * 4 / (4 * 15) = 0.6
    assert ablate_timesteps.rank_correlation([1, 2, 3, 4], [6, 5, 8, 7]) == pytest.approx(0.6)


def test_the_report_writes_its_files(tmp_path):
    text = ablate_timesteps.write_report(made_up_runs(), 'Heading\nmore', tmp_path)
    assert (tmp_path / 'ablation.md').read_text() == text
    lines = (tmp_path / 'ablation.csv').read_text().splitlines()
    assert lines[0] == 'law,joint,seed,oIoU,mIoU,mask_loss,mask_steps,image_steps,cpu_seconds'
    assert lines[4] == 'long-tail,True,1,51.0,50.0,0.6,400,390,60.0' and len(lines) == 9
    content = json.loads((tmp_path / 'ablation.json').read_text())
    assert content['runs'] == made_up_runs()
    assert content['summary'][2]['oIoU'] == [5.0, 7.0]
    for name in ('ablation.png', 'curves.png'):
        assert (tmp_path / name).read_bytes().startswith(b'\x89PNG')


def test_a_finished_run_is_read_and_not_run_again(args, monkeypatch):
    cfg, calls = Config.fromfile(CONFIG), []

    def train(command, log):
        calls.append(command)
        write_log(Path(command[command.index('--work-dir') + 1]), [2.0, 1.0])
        return 0, 1.5

    monkeypatch.setattr(training_cells, 'run_process', train)
    args.laws, args.seeds = ['uniform'], [0, 1]
    first = ablate_timesteps.run_all(args, cfg)
    assert len(calls) == 4 and [run['joint'] for run in first] == [False, False, True, True]
    assert [run['seed'] for run in first] == [0, 1, 0, 1] and first[0]['cpu_seconds'] == 1.5
    args.laws = ['uniform', 'always 1']
    again = ablate_timesteps.run_all(args, cfg)
    assert len(calls) == 8 and again[:4] == first
    assert [run['law'] for run in again] == ['uniform'] * 4 + ['always 1'] * 4
    args.batch_size = 8
    with pytest.raises(ValueError, match='other settings.*batch_size=16.*batch_size=8'):
        ablate_timesteps.run_all(args, cfg)
    assert len(calls) == 8


def test_an_interrupted_run_starts_anew_and_a_failed_one_says_where(args, monkeypatch):
    cfg, left = Config.fromfile(CONFIG), Path(args.work_dir, 'uniform_seed0/old.pth')
    left.parent.mkdir()
    left.write_text('')

    def fail(command, log):
        log.write('error: no such thing\n')
        return 2, 0.0

    monkeypatch.setattr(training_cells, 'run_process', fail)
    with pytest.raises(ValueError, match='uniform_seed0 failed.*train.txt: error: no such thing'):
        ablate_timesteps.run(args, cfg, 'uniform', False, 0)
    assert not left.exists()


@pytest.mark.slow
def test_two_real_runs(tmp_path, monkeypatch, capsys):
    command = ['tool', '--iters', '2', '--laws', 'always 1', '--seeds', '0', '--batch-size', '4']
    command += ['--work-dir', str(tmp_path), '--cfg-options', 'val_dataloader.dataset.max_items=8']
    monkeypatch.setattr(sys, 'argv', command)
    ablate_timesteps.main()
    runs = json.loads((tmp_path / 'ablation.json').read_text())['runs']
    assert [(run['joint'], run['mask_steps']) for run in runs] == [(False, 2), (True, 2)]
    assert runs[0]['image_steps'] == 0 and runs[0]['cpu_seconds'] > 1 and len(runs[0]['curve']) == 2
    assert runs[1]['image_steps'] == ablate_timesteps.joint_iterations(2, 4, 0) - 2
    assert 'oIoU' in capsys.readouterr().out
