"""The table of label efficiency: configs of its arms, finished cells, statistics, what it says."""

import json
import sys
from pathlib import Path

import label_efficiency
import pytest
from mmengine.config import Config

from genseg_mm.launch import training_cells
from genseg_mm.registry import MODELS


@pytest.fixture
def parsed(tmp_path, monkeypatch):
    """Parses a command line."""

    def parse(*words):
        monkeypatch.setattr(sys, 'argv', ['tool', '--work-dir', str(tmp_path), *words])
        return label_efficiency.parse_args()

    return parse


def test_all_arms_of_a_cell_see_the_same_labels(parsed):
    args = parsed('--updates', '400', '--pretrain-updates', '300', '--test-scenes', '30')
    arms = {arm: label_efficiency.cell_config(args, arm, 20, 500, 3) for arm in label_efficiency.ARMS}
    loaders = [cfg.train_dataloader.to_dict() for cfg in arms.values()]
    assert all(own == loaders[0] for own in loaders)
    dataset, sampler = loaders[0]['dataset'], loaders[0]['sampler']
    assert (dataset['num_names'], dataset['names_seed'], dataset['num_scenes'], dataset['seed']) == (20, 3, 500, 3)
    assert dataset['groups'] == ('household', 'transport-ground') and sampler['seed'] == 3
    for arm, cfg in arms.items():
        assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval, cfg.param_scheduler[1].end) == (400, 400, 400)
        assert [part.num_scenes for part in cfg.val_dataloader.dataset.datasets] == [15, 30, 30]
        expected = args.work_dir / f'pretraining_{arm}_seed3/iter_300.pth' if arm in ('all', 'narrow') else None
        assert cfg.get('load_from') == (expected and str(expected.resolve()))
    models = {arm: cfg.model.to_dict() for arm, cfg in arms.items()}
    assert models['all'] == models['narrow'] == models['scratch'] != models['discriminative']
    assert models['discriminative']['type'] == 'mmseg.EncoderDecoder'


@pytest.mark.parametrize('network', label_efficiency.NETWORKS)
def test_pretraining_sees_no_label_and_its_weights_fit(parsed, network):
    args = parsed('--network', network)
    cfg = label_efficiency.pretraining_config(args, 'all', 1)
    narrow = label_efficiency.pretraining_config(args, 'narrow', 1)
    dataset = cfg.train_dataloader.dataset
    assert dataset.task == 'unlabelled' and 'groups' not in dataset and 'val_dataloader' not in cfg
    assert narrow.train_dataloader.dataset.to_dict() == dict(
        dataset.to_dict(), groups=('household', 'transport-ground')
    )
    assert [own.type for own in dataset.pipeline] == ['genseg_mm.RandomInstanceFlip', 'genseg_mm.PackGenSegInputs']
    pretrained = MODELS.build(cfg.model).state_dict()
    tuned = MODELS.build(label_efficiency.cell_config(args, 'all', 5, 50, 1).model).state_dict()
    shapes = {name: value.shape for name, value in pretrained.items() if name.startswith('colorer.')}
    assert shapes == {name: value.shape for name, value in tuned.items() if name.startswith('colorer.')} != {}


def write_log(folder: Path, unseen: float | None) -> None:
    """A log as the trainer writes it."""
    lines = [dict(loss=2.0, step=1), dict(loss=1.5, step=2)]
    if unseen is not None:
        scores = dict(seen_mIoU=40.0, unseen_mIoU=unseen, collapse_share=0.2)
        for part in ('seen', 'unseen'):
            scores |= {f'{part}_control_position': 27.0, f'{part}_oracle_foreground': 67.0}
        lines.append(dict(scores, step=2))
    path = folder / '20260101_000000/vis_data/scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, lines)) + '\n')
    (folder / 'iter_2.pth').touch()


def test_finished_cells_are_kept_and_a_larger_grid_adds_to_them(parsed, tmp_path, monkeypatch, capsys):
    calls = []

    def train(command, log):
        folder = Path(command[command.index('--work-dir') + 1])
        calls.append(folder.name)
        cfg = Config.fromfile(command[2])  # it is whole
        seed = cfg.randomness.seed
        unseen = None if 'val_dataloader' not in cfg else 30.0 + 2 * seed + (5 + seed) * bool(cfg.get('load_from'))
        write_log(folder, unseen)
        return 0, 12.0

    monkeypatch.setattr(training_cells, 'run_process', train)
    words = ['--arms', 'all', 'scratch', '--cells', '20x50']
    parsed(*words, '--seeds', '0')
    label_efficiency.main()
    assert calls == ['pretraining_all_seed0', 'cell_all_20x50_seed0', 'cell_scratch_20x50_seed0']
    assert 'nothing can be said yet' in capsys.readouterr().out
    assert (tmp_path / 'pretraining_all_seed0/iter_2.pth').exists()
    assert not (tmp_path / 'cell_all_20x50_seed0/iter_2.pth').exists()
    parsed(*words, '--seeds', '0', '1')
    label_efficiency.main()
    assert calls[3:] == ['pretraining_all_seed1', 'cell_all_20x50_seed1', 'cell_scratch_20x50_seed1']
    said = capsys.readouterr().out
    # Gains 5 and 6: 5.5 +- 12.706 sqrt(1/2) / sqrt(2).
    row = next(line for line in said.splitlines() if line.startswith('| 20 | 50 | pretrained on all kinds'))
    assert (
        row
        == '| 20 | 50 | pretrained on all kinds | 2 | 40.0 +- 0.0 | 36.5 +- 19.1 | -3.5 +- 19.1 | +5.5 +- 6.4 | 12 |'
    )
    assert '| | | control position | | 27.0 | 27.0 | | | |' in said
    assert 'by +5.5 to +5.5 over 1 cells; the interval lies above 0 in 0 and below 0 in 0 of them' in said
    assert (tmp_path / 'table.png').read_bytes().startswith(b'\x89PNG')
    rows = json.loads((tmp_path / 'table.json').read_text())['rows']
    assert [(own['arm'], own['seeds'], own['gain'] is None) for own in rows] == [
        ('all', [0, 1], False),
        ('scratch', [0, 1], True),
    ]
    args = parsed(*words, '--seeds', '0', '--test-scenes', '50')
    with pytest.raises(ValueError, match='other settings .the config has changed'):
        label_efficiency.run_all(args)
    parsed('--report')
    label_efficiency.main()
    assert len(calls) == 6 and said.split('\n\n# ')[1].split('written')[0] in capsys.readouterr().out


def test_a_verdict_needs_an_interval_beside_zero():
    def row(mean, half):
        return dict(arm='all', gain=(mean, half), seeds=[0, 1])

    assert label_efficiency.verdict([row(3.0, 1.0), row(-2.0, 1.0), row(1.0, 2.0)]) == (
        'Pretraining on all kinds changes unseen mIoU by -2.0 to +3.0 over 3 cells; the interval lies above 0 in 1 and '
        'below 0 in 1 of them.'
    )


def test_wrong_input_says_what_came(parsed, tmp_path, capsys):
    for words, message in (
        (['--cells', '20'], "KINDSxSCENES such as 20x500, but got '20'"),
        (['--jobs', '0'], '--jobs'),
    ):
        with pytest.raises(SystemExit):
            parsed(*words)
        assert message in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match='has no finished cell'):
        label_efficiency.write_report(parsed())
    write_log(tmp_path / 'cell', None)
    with pytest.raises(ValueError, match='expected a validation with unseen_mIoU in its log'):
        label_efficiency.read_scores(tmp_path / 'cell')
