"""Config, processes and errors of the tools."""

import argparse
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch.utils.data import DataLoader
from toy_parts import CONFIG, toy_runner

from genseg_mm import launch
from genseg_mm.launch import SafeRunner, config, processes, user_message
from genseg_mm.launch import config as config_module

TOOLS = Path(__file__).parents[2] / 'tools'


def parse(*options: str) -> argparse.Namespace:
    parser = launch.ToolParser()
    parser.add_argument('config')
    launch.add_common_arguments(parser)
    return parser.parse_args([str(CONFIG), *options])


class TestLoadConfig:
    def test_options_override_the_config(self) -> None:
        options = ['train_cfg.max_iters=7', 'train_dataloader.dataset.datasets.0.num_samples=3']
        cfg = launch.load_config(parse('--cfg-options', *options, '--launcher', 'mpi'), 'train')
        assert cfg.train_cfg.max_iters == 7
        assert cfg.train_dataloader.dataset.datasets[0].num_samples == 3
        assert cfg.launcher == 'mpi'
        assert cfg.default_hooks.checkpoint.type == 'genseg_mm.SafeCheckpointHook'

    def test_work_dir_is_that_of_the_command_line_then_config_then_name(self) -> None:
        cfg = launch.load_config(parse(), 'train')
        assert cfg.work_dir == os.path.join('work_dirs', 'toy_config')
        cfg = launch.load_config(parse('--cfg-options', 'work_dir=a'), 'train')
        assert cfg.work_dir == 'a'
        options = ['--work-dir', 'b', '--cfg-options', 'work_dir=a']
        assert launch.load_config(parse(*options), 'train').work_dir == 'b'
        cfg = launch.load_config(parse('--work-dir', '~/b'), 'train')  # where it was checked to be writable
        assert cfg.work_dir == os.path.expanduser('~/b')

    @pytest.mark.parametrize(
        ('name', 'content', 'message'),
        [
            ('a.py', 'model = dict(', r'a\.py is not a valid config: line 1: .*never closed'),
            ('a.sh', 'echo', r'a\.sh is not a config \(\.py, \.yml, \.yaml or \.json\)'),
            ('a.py', 'lr = 1', r'a\.py has no model, which training needs'),
            ('a.py', 'model = dict()', r'a\.py has no train_dataloader'),
        ],
    )
    def test_wrong_files(self, tmp_path: Path, name: str, content: str, message: str) -> None:
        (tmp_path / name).write_text(content)
        args = parse()
        args.config = str(tmp_path / name)
        with pytest.raises(ValueError, match=message):
            launch.load_config(args, 'train')

    def test_missing_files(self, tmp_path: Path) -> None:
        args = parse()
        args.config = str(tmp_path / 'none.py')
        with pytest.raises(FileNotFoundError, match=r'config .*none\.py does not exist'):
            launch.load_config(args, 'train')
        (tmp_path / 'heir.py').write_text("_base_ = 'parent.py'")
        args.config = str(tmp_path / 'heir.py')
        with pytest.raises(FileNotFoundError, match=r'heir\.py.* \S+/parent\.py does not exist'):
            launch.load_config(args, 'train')

    @pytest.mark.parametrize(
        ('option', 'message'),
        [
            ('trian_cfg.max_iters=3', "no 'trian_cfg'; did you mean 'train_cfg'?"),
            ('zzz=3', "the config has no 'zzz'$"),
            ('param_scheduler.1.end=3', "is a list of 1, .* below 1 must follow, but got '1'"),
            ('param_scheduler.end=3', "list of 1, .* but got 'end'"),
            ('work_dirs=x', "did you mean 'work_dir'"),
        ],
    )
    def test_unknown_options_are_refused(self, option: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            launch.load_config(parse('--cfg-options', option), 'train')

    @pytest.mark.parametrize(
        ('option', 'message'),
        [
            ('train_cfg.max_iter=3', "nothing reads 'max_iter' in train_cfg .*'max_iters'"),
            ('model.chanels=3', "nothing reads 'chanels' in model .ToyModel.; did you mean 'channels'"),
            ('optim_wrapper.optimizer.weight_decays=3', "did you mean 'weight_decay'"),
            ('train_dataloader.num_worker=3', "did you mean 'num_workers'"),
            ('randomness.sed=3', "did you mean 'seed'"),
            ('default_hooks.checkpoint.max_keep_ckpt=1', "did you mean 'max_keep_ckpts'"),
            ('compile.mod=3', "nothing reads 'mod' in compile; did you mean 'mode'"),
            ('model_wrapper_cfg.find_unused=3', "did you mean 'find_unused_parameters'"),
            ('optim_wrapper.paramwise_cfg.norm_decay_mlt=0', "did you mean 'norm_decay_mult'"),
            ("optim_wrapper.clip_grad={'max_nrom': 1}", "did you mean 'max_norm'"),
            ('default_hooks.mine=3', "nothing reads 'mine' in default_hooks"),
            ('_dataset.num_samples=3', 'only the code of the config file reads'),
        ],
    )
    def test_options_that_nothing_reads_are_refused(self, option: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            launch.load_config(parse('--cfg-options', option), 'train')

    @pytest.mark.parametrize(
        ('option', 'path', 'value'),
        [
            ('compile=True', 'compile', True),
            ("compile={'mode': 'default'}", 'compile.mode', 'default'),
            ('compile.backend=inductor', 'compile.backend', 'inductor'),
            ('model_wrapper_cfg.find_unused_parameters=True', 'model_wrapper_cfg.find_unused_parameters', True),
            ("custom_hooks=[{'type': 'EMAHook', 'momentum': 0.001}]", 'custom_hooks.0.momentum', 0.001),
            ("optim_wrapper.clip_grad={'max_norm': 1, 'norm_type': 2}", 'optim_wrapper.clip_grad.norm_type', 2),
            ("optim_wrapper.optimizer={'type': 'SGD', 'lr': 2, '_delete_': True}", 'optim_wrapper.optimizer.lr', 2),
            ("default_hooks.early={'type': 'EarlyStoppingHook', 'monitor': 'x'}", 'default_hooks.early.monitor', 'x'),
            ("train_cfg={'type': 'EpochBasedTrainLoop', 'max_epochs': 1, '_delete_': True}", 'train_cfg.max_epochs', 1),
            ('optim_wrapper.paramwise_cfg.norm_decay_mult=0', 'optim_wrapper.paramwise_cfg.norm_decay_mult', 0),
            ('optim_wrapper.paramwise_cfg.custom_keys.a.b=2', 'optim_wrapper.paramwise_cfg.custom_keys.a.b', 2),
            ('param_scheduler.0.end=5', 'param_scheduler.0.end', 5),
            ('param_scheduler=[]', 'param_scheduler', []),
            ('custom_hooks=[]', 'custom_hooks', []),
            ('visualizer.vis_backends=[]', 'visualizer.vis_backends', []),
            ('visualizer.vis_backends=[dict]', 'visualizer.vis_backends.0', 'dict'),
            ('env_cfg.mp_cfg.mp_start_method=spawn', 'env_cfg.mp_cfg.mp_start_method', 'spawn'),
            ('env_cfg.dist_cfg.timeout=9', 'env_cfg.dist_cfg.timeout', 9),
            ('find_unused_parameters=True', 'find_unused_parameters', True),
            ('experiment_name=a', 'experiment_name', 'a'),
            ('log_level=WARNING', 'log_level', 'WARNING'),
            ('load_from=None', 'load_from', None),
            ('resume=True', 'resume', True),
            ('default_scope=mmseg', 'default_scope', 'mmseg'),
            ('sync_bn=torch', 'sync_bn', 'torch'),
            ('train_dataloader.prefetch_factor=4', 'train_dataloader.prefetch_factor', 4),
            ('train_dataloader.sampler.shuffle=False', 'train_dataloader.sampler.shuffle', False),
            ('train_cfg.dynamic_intervals=[(0,5)]', 'train_cfg.dynamic_intervals', [(0, 5)]),
            ('default_hooks.checkpoint.rule=greater', 'default_hooks.checkpoint.rule', 'greater'),
            ('default_hooks.visualization=None', 'default_hooks.visualization', None),
            ('optim_wrapper.accumulative_counts=2', 'optim_wrapper.accumulative_counts', 2),
            ('optim_wrapper.clip_grad.max_norm=3', 'optim_wrapper.clip_grad.max_norm', 3),
            ('optim_wrapper.optimizer.weight_decay=0.5', 'optim_wrapper.optimizer.weight_decay', 0.5),
            ('val_dataloader.num_workers=1', 'val_dataloader.num_workers', 1),
            ('train_dataloader.dataset.datasets.0.seed=3', 'train_dataloader.dataset.datasets.0.seed', 3),
            ('model.blow_up_at=9', 'model.blow_up_at', 9),
            ('randomness.deterministic=True', 'randomness.deterministic', True),
            ('default_hooks.checkpoint.filename_tmpl=a_{}.pth', 'default_hooks.checkpoint.filename_tmpl', 'a_{}.pth'),
        ],
    )
    def test_arguments_of_what_is_built_are_taken(self, option: str, path: str, value: object) -> None:
        node = launch.load_config(parse('--cfg-options', option), 'train')
        for key in path.split('.'):
            node = node[int(key) if key.isdigit() else key]
        assert node == value

    def test_malformed_options_end_with_usage(self, capsys) -> None:
        with pytest.raises(SystemExit) as caught:
            parse('--cfg-options', 'train_cfg')
        assert caught.value.code == 2
        assert "takes key=value pairs, but got 'train_cfg'" in capsys.readouterr().err
        with pytest.raises(SystemExit) as caught:
            parse('--cfg-options', "custom_hooks=[{'type': EMAHook}]")
        assert caught.value.code == 2
        assert "custom_hooks: expected a dict as Python writes it ({'a': 1}), but got" in capsys.readouterr().err


class TestSwitches:
    @pytest.fixture
    def cfg(self) -> Config:
        return Config.fromfile(CONFIG)

    @pytest.mark.parametrize(
        ('gpu', 'before', 'after'),
        [
            (False, 'OptimWrapper', 'genseg_mm.AutocastOptimWrapper'),
            (True, 'OptimWrapper', 'AmpOptimWrapper'),
            (True, 'genseg_mm.AutocastOptimWrapper', 'genseg_mm.AutocastOptimWrapper'),
            (False, 'AmpOptimWrapper', 'AmpOptimWrapper'),
        ],
    )
    def test_amp(self, cfg: Config, monkeypatch, gpu: bool, before: str, after: str) -> None:
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
        cfg.optim_wrapper.type = before
        launch.enable_amp(cfg)
        assert cfg.optim_wrapper.type == after
        assert cfg.optim_wrapper.get('loss_scale') == ('dynamic' if before != after and gpu else None)

    def test_amp_needs_a_plain_wrapper(self, cfg: Config, monkeypatch) -> None:
        cfg.optim_wrapper.type = 'DeepSpeedOptimWrapper'
        with pytest.raises(ValueError, match='but got DeepSpeedOptimWrapper'):
            launch.enable_amp(cfg)
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        with pytest.raises(ValueError, match='needs a GPU, and none is visible'):
            launch.check_device(cfg)

    def test_learning_rate_follows_the_batch_size(self, cfg: Config, tmp_path: Path) -> None:
        launch.enable_lr_scaling(cfg)
        runner = toy_runner(tmp_path, auto_scale_lr=cfg.auto_scale_lr, param_scheduler=None)
        wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.scale_lr(wrapper, runner.auto_scale_lr)
        assert wrapper.get_lr()['lr'] == [0.01 * 4 / 8]
        wrapper = runner.build_optim_wrapper(dict(runner.optim_wrapper, accumulative_counts=4))
        runner.scale_lr(wrapper, runner.auto_scale_lr)  # accumulated iterations belong to the batch
        assert wrapper.get_lr()['lr'] == [0.01 * 4 * 4 / 8]
        with pytest.raises(ValueError, match='needs auto_scale_lr=dict'):
            launch.enable_lr_scaling(Config(dict()))

    def test_resume(self, cfg: Config, tmp_path: Path, monkeypatch) -> None:
        cfg.load_from = str(tmp_path / 'weights.pth')
        with pytest.raises(FileNotFoundError, match=r'weights\.pth does not exist'):
            launch.set_resume(cfg, None)
        (tmp_path / 'weights.pth').touch()
        launch.set_resume(cfg, 'auto')
        assert (cfg.resume, cfg.load_from) == ('auto', str(tmp_path / 'weights.pth'))
        launch.set_resume(cfg, str(tmp_path / 'weights.pth'))
        assert cfg.resume is True
        monkeypatch.setattr(config, 'urlopen', lambda *_, **__: nullcontext())
        launch.set_checkpoint(cfg, 'https://a.b/c.pth')
        assert (cfg.resume, cfg.load_from) == (False, 'https://a.b/c.pth')

    def test_pictures_use_the_hook_of_the_config(self, cfg: Config, monkeypatch) -> None:
        launch.enable_pictures(cfg, False, 'out', 1)
        hook = cfg.default_hooks.visualization
        assert (hook.test, hook.num_images, hook.out_dir) == (True, None, os.path.abspath('out'))
        cfg.default_hooks.visualization = dict(type='mmseg.SegVisualizationHook')
        launch.enable_pictures(cfg, False, 'out', 1)
        hook = cfg.default_hooks.visualization
        assert dict(hook) == dict(type='mmseg.SegVisualizationHook', draw=True, show=False, wait_time=1)
        assert cfg.visualizer.save_dir == 'out'
        monkeypatch.delenv('DISPLAY', raising=False)
        monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
        if sys.platform == 'linux':
            with pytest.raises(ValueError, match='--show needs a display'):
                launch.enable_pictures(cfg, True, None, 1)

    def test_tta_and_dump(self, cfg: Config) -> None:
        with pytest.raises(ValueError, match='needs tta_model and tta_pipeline'):
            launch.enable_tta(cfg)
        cfg.tta_model, cfg.tta_pipeline = dict(type='Averages'), [dict(type='Flips')]
        cfg.test_dataloader.dataset = dict(type='Repeat', dataset=cfg.test_dataloader.dataset)
        launch.enable_tta(cfg)
        assert (cfg.model.type, cfg.model.module.type) == ('Averages', 'ToyModel')
        assert cfg.test_dataloader.dataset.dataset.pipeline == [dict(type='Flips')]
        launch.dump_predictions(cfg, 'a.pkl')
        assert [metric['type'] for metric in cfg.test_evaluator] == ['ToyIoU', 'DumpResults']
        with pytest.raises(ValueError, match=r'writes a \.pkl file, but got a\.json'):
            launch.dump_predictions(cfg, 'a.json')


class TestProcesses:
    def test_launcher_without_its_variables(self, monkeypatch) -> None:
        for name in ('RANK', 'SLURM_PROCID'):
            monkeypatch.delenv(name, raising=False)
        for launcher, name in (('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID')):
            with pytest.raises(ValueError, match=f'expects the variable {name}, .*dist_train.sh'):
                launch.connect_processes(Config(dict(launcher=launcher)))

    def test_too_few_gpus(self, monkeypatch) -> None:
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
        for name, value in dict(RANK=0, WORLD_SIZE=2, LOCAL_WORLD_SIZE=2).items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(ValueError, match='2 processes were started .* but 1 GPUs are visible'):
            launch.connect_processes(Config(dict(launcher='pytorch')))

    def test_gloo_and_a_wrapper_without_devices_on_a_cpu(self, monkeypatch) -> None:
        groups = []
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
        monkeypatch.setattr(processes.dist, 'init_process_group', lambda *a, **k: groups.append((a, k)))
        monkeypatch.setattr(os, 'environ', dict(os.environ))
        os.environ.update(SLURM_PROCID='3', SLURM_NTASKS='4', SLURM_LOCALID='1', MASTER_ADDR='node0')
        cfg = Config(dict(launcher='slurm', find_unused_parameters=True))
        launch.connect_processes(cfg)
        once = dict(type='MMDistributedDataParallel', broadcast_buffers=False, gradient_as_bucket_view=True)
        assert cfg.model_wrapper_cfg == dict(once, find_unused_parameters=True, device_ids=None)
        own = Config(dict(launcher='slurm', model_wrapper_cfg=dict(find_unused_parameters=True)))
        launch.connect_processes(own)
        assert own.model_wrapper_cfg == dict(find_unused_parameters=True, device_ids=None) and groups.pop()
        assert groups[0][0] == ('gloo',) and groups[0][1]['timeout'].total_seconds() == 1800
        names = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')
        assert [os.environ[name] for name in names] == ['3', '4', '1', 'node0', '29500']
        del os.environ['MASTER_PORT']
        os.environ['SLURM_JOB_ID'] = '1234567'  # jobs may share a machine
        launch.connect_processes(Config(dict(launcher='slurm')))
        assert os.environ['MASTER_PORT'] == '34567' and groups.pop()
        cfg = Config(dict(launcher='none'))
        launch.connect_processes(cfg)
        assert len(groups) == 1 and 'model_wrapper_cfg' not in cfg


class TestSafeRunner:
    @pytest.fixture(scope='class')
    def trained(self, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp('trained')
        toy_runner(folder, {'train_cfg.max_iters': 10}).train()
        return folder

    def load(self, tmp_path: Path, options: dict, **changes: object) -> SafeRunner:
        runner = toy_runner(tmp_path, options, **changes)
        runner.train()
        return runner

    def test_auto_resume_starts_anew_from_load_from_where_there_is_nothing(self, tmp_path: Path, trained: Path) -> None:
        start = str(trained / 'iter_10.pth')
        options = {'optim_wrapper.optimizer.lr': 0.0}
        runner = self.load(tmp_path, options, resume='auto', load_from=start)
        assert runner.iter == 20  # all iterations, with the weights of the other training
        weights = torch.load(start, weights_only=False)['state_dict']
        for name, value in runner.model.state_dict().items():
            assert torch.equal(value, weights[name]), name

    def test_resume_and_test_need_a_checkpoint_that_fits(self, tmp_path, trained: Path) -> None:
        newest = str(trained / 'iter_10.pth')
        message = r'iter_10\.pth does not fit the model: size mismatch for first\.weight: .*\[4, 3'
        with pytest.raises(ValueError, match=message):
            self.load(tmp_path, {'model.channels': 5}, resume=True, load_from=newest)
        part = tmp_path / 'part.pth'
        torch.save({'first.weight': torch.zeros(4, 3, 3, 3), 'old.bias': torch.zeros(1)}, part)
        message = (
            r'1 unexpected key in the file: old\.bias; '
            r'4 missing keys in the file: ballast, first\.bias, last\.weight, last\.bias$'
        )
        with pytest.raises(ValueError, match=message):
            toy_runner(tmp_path, load_from=str(part)).test()

    def test_load_from_may_be_partial_but_not_foreign(self, tmp_path: Path) -> None:
        torch.save({'first.bias': torch.full((4,), 9.0)}, tmp_path / 'part.pth')
        options = {'optim_wrapper.optimizer.lr': 0.0, 'train_cfg.max_iters': 1}
        runner = self.load(tmp_path, options, load_from=str(tmp_path / 'part.pth'))
        assert runner.model.first.bias.tolist() == [9.0] * 4
        torch.save({'backbone.bias': torch.zeros(4)}, tmp_path / 'foreign.pth')
        message = r'foreign\.pth has nothing for this model: .* backbone\.bias, .* ballast, first\.bias'
        with pytest.raises(ValueError, match=message):
            self.load(tmp_path, options, load_from=str(tmp_path / 'foreign.pth'))

    def test_weights_alone_cannot_be_resumed_from(self, tmp_path: Path, trained: Path) -> None:
        best = str(trained / 'best_toy_oIoU_iter_10.pth')
        with pytest.raises(ValueError, match=r'best_.*pth holds weights but no training state'):
            self.load(tmp_path, {}, resume=True, load_from=best)
        assert toy_runner(tmp_path, load_from=best).test()['toy/num_samples'] == 10


class Broken(torch.utils.data.Dataset):
    """Fails in the way asked for."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        if self.how == 'ours':
            launch.dump_predictions(Config(), f'item\n{index}')
        elif self.how == 'file':
            Path('/nowhere/picture.png').read_bytes()
        elif self.how == 'theirs':
            raise ValueError('not from the package')
        raise RuntimeError('bug')


class TestErrors:
    def caught(self, function: object, *args: object) -> Exception:
        with pytest.raises(Exception) as caught:
            function(*args)
        return caught.value

    @pytest.mark.parametrize(
        ('how', 'message'),
        [
            ('ours', '--out writes a .pkl file, but got item 0'),
            ('file', "[Errno 2] No such file or directory: '/nowhere/picture.png'"),
            ('theirs', None),
            ('bug', None),
        ],
    )
    def test_errors_of_workers_are_told_apart(self, how: str, message: str | None) -> None:
        loader = DataLoader(Broken(how), num_workers=1)
        assert user_message(self.caught(next, iter(loader))) == message

    def test_errors_of_this_process_are_told_apart(self, tmp_path: Path) -> None:
        error = self.caught(open, tmp_path / 'a.png')
        assert user_message(error) == f'No such file or directory: {tmp_path}/a.png'
        error = self.caught(launch.dump_predictions, Config(), 'a')
        assert user_message(error) == '--out writes a .pkl file, but got a'
        assert user_message(self.caught(int, 'x')) is None
        assert user_message(self.caught(lambda: {}['x'])) is None

    @pytest.mark.parametrize(
        ('option', 'message'),
        [
            ({'model.type': 'ToyMode'}, 'in the config: ToyMode is not in the mmengine::model'),
            ({'model.size': 3}, 'in the config: ToyModel.__init__() got an unexpected keyword'),
        ],
    )
    def test_unknown_names_in_the_config(self, tmp_path: Path, option: dict, message: str) -> None:
        error = self.caught(toy_runner, tmp_path, option)
        assert user_message(error).startswith(message)

    def test_tools_end_with_one_line_and_code_2(self, tmp_path: Path, monkeypatch, capsys) -> None:
        def main() -> None:
            config_module.override_config(Config(dict(a=1)), dict(b=1))

        monkeypatch.delenv('GENSEG_TRACEBACK', raising=False)
        monkeypatch.setenv('RANK', '0')
        with pytest.raises(SystemExit) as caught:
            launch.run_tool(main)
        assert caught.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: --cfg-options b: the config has no 'b'")
        monkeypatch.setenv('RANK', '1')  # the same error in all processes is printed once
        with pytest.raises(SystemExit):
            launch.run_tool(main)
        assert capsys.readouterr().err == ''
        monkeypatch.setenv('GENSEG_TRACEBACK', '1')
        with pytest.raises(ValueError, match="no 'b'"):
            launch.run_tool(main)

    def test_from_any_folder(self, tmp_path: Path) -> None:
        command = [sys.executable, TOOLS / 'train.py', 'no.py']
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 2
        assert result.stderr == 'error: config no.py does not exist\n'
