"""Checkpoints that survive a kill, a stop at NaN, and pictures of predictions."""

import math
import os
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from PIL import Image
from toy_parts import toy_runner

from genseg_mm import pictures
from genseg_mm.checkpoint import load_weights_only
from genseg_mm.hooks import FiniteLossHook, PredictionGridHook, SafeCheckpointHook, prediction_grid_hook
from genseg_mm.hooks.prediction_grid_hook import caption, draw_sample
from genseg_mm.registry import HOOKS


def names(folder: Path, pattern: str = '*.pth*') -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


def same_state(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def without_validation(**hook: object) -> dict:
    """Options for a short training that only saves."""
    options = {f'default_hooks.checkpoint.{key}': value for key, value in hook.items()}
    return {'default_hooks.checkpoint.save_best': None, 'train_cfg.val_interval': 1000, **options}


class TestSafeCheckpointHook:
    def test_keeps_the_newest_and_the_best(self, tmp_path: Path) -> None:
        runner = toy_runner(tmp_path)
        runner.train()
        assert names(tmp_path) == ['best_toy_oIoU_iter_20.pth', 'iter_15.pth', 'iter_20.pth']
        newest = str(tmp_path / 'iter_20.pth')
        assert (tmp_path / 'last_checkpoint').read_text() == newest
        saved = load_weights_only(newest)
        assert saved['meta']['iter'] == 20
        assert same_state(saved['state_dict'], runner.model.state_dict())
        moments = runner.optim_wrapper.state_dict()['state'][0]
        assert torch.equal(saved['optimizer']['state'][0]['exp_avg'], moments['exp_avg'])
        info = saved['message_hub']['runtime_info']
        assert info['keep_ckpt_ids'] == [15, 20]
        assert info['best_ckpt'] == str(tmp_path / 'best_toy_oIoU_iter_20.pth')
        assert info['best_score'] == runner.message_hub.get_info('best_score')
        best = load_weights_only(info['best_ckpt'])
        assert 'optimizer' not in best
        assert same_state(best['state_dict'], saved['state_dict'])

    def test_old_files_go_only_after_the_new_ones_are_in_place(self, tmp_path, monkeypatch) -> None:
        removals = []

        def remove(hook: SafeCheckpointHook, path: str) -> None:
            if path.endswith('.pth'):
                pointer = Path((tmp_path / 'last_checkpoint').read_text())
                load_weights_only(str(pointer))
                removals.append((os.path.basename(path), pointer.name, names(tmp_path)))
            os.path.exists(path) and os.remove(path)

        monkeypatch.setattr(SafeCheckpointHook, '_remove', remove)
        toy_runner(tmp_path, {'default_hooks.checkpoint.max_keep_ckpts': 1}).train()
        best = 'best_toy_oIoU_iter_10.pth'
        assert removals == [
            ('iter_5.pth', 'iter_10.pth', ['iter_10.pth', 'iter_5.pth']),
            ('iter_10.pth', 'iter_15.pth', [best, 'iter_10.pth', 'iter_15.pth']),
            ('iter_15.pth', 'iter_20.pth', [best, 'iter_15.pth', 'iter_20.pth']),
            (best, 'iter_20.pth', [best, 'best_toy_oIoU_iter_20.pth', 'iter_20.pth']),
        ]

    def test_failed_save_leaves_the_old_checkpoint_and_no_rubbish(self, tmp_path, monkeypatch) -> None:
        save, saved = torch.save, []

        def full_disk(checkpoint: dict, file: object) -> None:
            if saved and isinstance(file, str):
                Path(file).write_bytes(b'PK')
                raise OSError(28, 'No space left on device')
            save(checkpoint, file)
            saved.append(file)

        monkeypatch.setattr(torch, 'save', full_disk)
        runner = toy_runner(tmp_path, without_validation(max_keep_ckpts=1))
        with pytest.raises(OSError, match='No space left'):
            runner.train()
        assert names(tmp_path) == ['iter_5.pth']
        assert (tmp_path / 'last_checkpoint').read_text().endswith('iter_5.pth')
        assert load_weights_only(str(tmp_path / 'iter_5.pth'))['meta']['iter'] == 5

    def test_what_a_kill_left_is_deleted_at_resume_and_nothing_of_the_user(self, tmp_path) -> None:
        keep = {'default_hooks.checkpoint.max_keep_ckpts': 1, 'default_hooks.visualization': None}
        toy_runner(tmp_path, {**keep, 'train_cfg.max_iters': 10}).train()
        best = 'best_toy_oIoU_iter_10.pth'
        leaked = ['iter_5.pth', 'iter_9.pth', 'best_toy_oIoU_iter_5.pth']
        partial = [
            'iter_15.pth.tmp', 'iter_15.pth.stream.tmp', f'{best}.stream.tmp', 'last_checkpoint.tmp',
        ]  # fmt: skip
        of_user = [
            'iter_5_copy.pth', 'my_iter_5.pth', 'iter_05.pth', 'iter_5.pth.bak', 'best.pth', 'notes.tmp',
            'best_of_all_iter_5.pth', 'best_toy_oIoU_iter_5-0123abcd.pth', 'iter_25.pth', 'model.pth.tmp',
        ]  # fmt: skip
        for name in (*leaked, *of_user):
            (tmp_path / name).write_bytes((tmp_path / best).read_bytes())
        for name in partial:
            (tmp_path / name).write_bytes(b'PK')
        runner = toy_runner(tmp_path, {**keep, 'train_cfg.max_iters': 12}, resume='auto')
        said = []
        runner.logger.info = said.append
        runner.train()
        there = names(tmp_path, '*')
        assert [name for name in (*leaked, *partial) if name in there] == []
        assert [name for name in of_user if name not in there] == []
        lines = [line for line in said if line.startswith('Deleted from ')]
        assert lines == [
            f'Deleted from {tmp_path}, left by a killed run: best_toy_oIoU_iter_5.pth, iter_5.pth, iter_9.pth'
        ]

    def test_all_checkpoints_stay_where_all_are_kept(self, tmp_path) -> None:
        keep = {'default_hooks.checkpoint.max_keep_ckpts': -1, 'default_hooks.visualization': None}
        toy_runner(tmp_path, {**keep, 'train_cfg.max_iters': 10}).train()
        toy_runner(tmp_path, {**keep, 'train_cfg.max_iters': 11}, resume='auto').train()
        assert names(tmp_path, 'iter*') == ['iter_10.pth', 'iter_11.pth', 'iter_5.pth']

    def test_several_best_metrics_have_a_file_each(self, tmp_path: Path) -> None:
        options = {'default_hooks.checkpoint.save_best': ['toy/oIoU', 'toy/num_samples']}
        options['default_hooks.checkpoint.rule'] = 'greater'
        toy_runner(tmp_path, options).train()
        # The number of samples does not grow, so its first file stays the best.
        assert names(tmp_path, 'best*') == ['best_toy_num_samples_iter_10.pth', 'best_toy_oIoU_iter_20.pth']

    def test_unknown_best_metric_lists_what_there_is(self, tmp_path: Path) -> None:
        runner = toy_runner(tmp_path, {'default_hooks.checkpoint.save_best': 'toy/mIoU'})
        with pytest.raises(ValueError, match="'toy/mIoU', but .* 'toy/oIoU', 'toy/num_samples'"):
            runner.train()

    @pytest.mark.parametrize('metric', ['toy/oIoU', 'cIoU', 'Pr@0.5', 'ODS', 'accuracy'])
    def test_more_is_better_for_our_metrics(self, metric: str) -> None:
        assert SafeCheckpointHook(save_best=metric).rules == ['greater']

    def test_does_not_copy_the_checkpoint_in_memory(self, tmp_path: Path) -> None:
        peaks = {}
        for kind in ('genseg_mm.SafeCheckpointHook', 'CheckpointHook'):
            options = without_validation(type=kind) | {'model.ballast': 8_000_000}
            runner = toy_runner(tmp_path / kind, options | {'train_cfg.max_iters': 1})
            tracemalloc.start()
            runner.train()
            peaks[kind] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peaks['CheckpointHook'] > 32e6
        assert peaks['genseg_mm.SafeCheckpointHook'] < 12e6
        files = [tmp_path / kind / 'iter_1.pth' for kind in peaks]
        first, second = (load_weights_only(str(file)) for file in files)
        assert same_state(first['state_dict'], second['state_dict'])

    def test_later_hooks_still_reach_the_checkpoint(self, tmp_path: Path) -> None:
        class Late(Hook):
            priority = 'LOWEST'

            def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
                checkpoint['late'] = runner.iter

        options = without_validation() | {'train_cfg.max_iters': 5}
        runner = toy_runner(tmp_path, options)
        runner.register_hook(Late())
        runner.train()
        assert names(tmp_path) == ['iter_5.pth']
        saved = load_weights_only(str(tmp_path / 'iter_5.pth'))
        assert (saved['late'], saved['meta']['iter']) == (4, 5)

    def test_what_others_save_is_left_to_them(self, tmp_path: Path) -> None:
        runner = toy_runner(tmp_path, without_validation() | {'train_cfg.max_iters': 1})
        runner.train()
        runner.save_checkpoint(str(tmp_path), 'mine.pth', meta=dict(iter=77))
        assert load_weights_only(str(tmp_path / 'mine.pth'))['meta']['iter'] == 77


def test_finite_loss_hook_stops_before_the_weights_are_saved(tmp_path: Path) -> None:
    runner = toy_runner(tmp_path, without_validation(interval=3) | {'model.blow_up_at': 5})
    with pytest.raises(ValueError, match=r'not finite at iteration 6 \(loss=nan; learning rate'):
        runner.train()
    assert names(tmp_path) == ['iter_3.pth']
    hook = HOOKS.build(dict(type='genseg_mm.FiniteLossHook'))
    assert type(hook) is FiniteLossHook
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # torch's, of a number that has a gradient
        hook.after_train_iter(runner, 0, outputs=dict(loss=torch.ones(2, requires_grad=True) * 2))


def sample(**data: object) -> BaseDataElement:
    return BaseDataElement(metainfo=dict(ori_shape=(4, 6)), **data)


def labels(rows: list[list[int]]) -> PixelData:
    return PixelData(data=torch.tensor([rows]))


class TestPictures:
    """On a black 4x6 image drawn at 24x16 pixels, so that each pixel becomes 4x4."""

    black = np.zeros((3, 4, 6), np.uint8)
    left = [[1, 1, 0, 0, 0, 0]] * 4

    def test_image_is_shown_as_rgb_at_the_original_aspect_ratio(self) -> None:
        image = self.black.copy()
        image[0, 1, 2] = 200  # blue, row 1, column 2
        shown = draw_sample(image, sample(), 24)['image']
        assert shown.shape == (16, 24, 3)
        assert (shown[4:8, 8:12] == (0, 0, 200)).all()
        assert shown.sum() == 200 * 16
        square = np.zeros((3, 8, 8), np.uint8)
        assert draw_sample(square, sample(), 24)['image'].shape == (16, 24, 3)

    def test_masks_are_tinted_and_ignored_pixels_gray(self) -> None:
        truth = [[1, 1, 0, 0, 255, 255]] * 4
        row = draw_sample(self.black, sample(gt_sem_seg=labels(truth)), 24)
        inside = (0.55 * np.array(pictures.MASK)).astype(np.uint8)
        assert (row['ground truth'][1:15, 1:7] == inside).all()
        assert (row['ground truth'][:, 0] == pictures.MASK).all()  # the outline
        assert (row['ground truth'][:, 8:16] == 0).all()
        gray = int(0.7 * pictures.IGNORED[0])
        assert (row['ground truth'][:, 16:] == gray).all()

    def test_an_empty_mask_only_dims_the_picture(self) -> None:
        white = np.full((3, 4, 6), 255, np.uint8)
        row = draw_sample(white, sample(pred_sem_seg=labels([[0] * 6] * 4)), 24)
        assert (row['prediction'] == 153).all()  # 0.6 * 255

    def test_instances_have_their_own_flat_colours(self) -> None:
        ids = labels([[0, 7, 7, 0, 1000, 0]] * 4)
        row = draw_sample(self.black, sample(gt_instance_map=ids), 24)['ground truth']
        assert (row[:, 4:12] == pictures.color_of(0)).all()
        assert (row[:, 16:20] == pictures.color_of(1)).all()
        assert (row[:, 12:16] == pictures.BACKGROUND).all()

    def test_color_map_is_shown_as_it_is(self) -> None:
        colors = torch.zeros(3, 4, 6)
        colors[0], colors[1, 0, 0] = 254.6, 300.0
        data = dict(pred_color_map=PixelData(data=colors), gt_instance_map=labels(self.left))
        shown = draw_sample(self.black, sample(**data), 24)['colour map']
        assert shown[0, 0].tolist() == [255, 255, 0]
        assert (shown[4:, :] == (255, 0, 0)).all()
        logits = PixelData(data=colors)
        stock = sample(seg_logits=logits, gt_instance_map=labels(self.left))
        assert (draw_sample(self.black, stock, 24)['colour map'] == shown).all()
        # Logits of a three-class model are no colours.
        stock = sample(seg_logits=logits, gt_sem_seg=labels(self.left))
        assert 'colour map' not in draw_sample(self.black, stock, 24)

    def test_a_generated_picture_stands_beside_the_one_it_was_asked_for(self) -> None:
        generated = torch.zeros(3, 4, 6, dtype=torch.uint8)
        generated[0, :, :3] = 90  # red, left half
        element = sample(pred_img=PixelData(data=generated))
        element.set_metainfo(dict(ori_shape=(40, 40), task='image', text='a wall'))
        row = draw_sample(self.black, element, 24)
        assert list(row) == ['image', 'prediction']
        assert row['prediction'].shape == (16, 24, 3)  # not the aspect ratio of the uncropped picture
        assert (row['prediction'][:, :12] == (90, 0, 0)).all() and row['prediction'][:, 12:].sum() == 0

    def test_points_and_their_masks_share_a_colour(self) -> None:
        masks = torch.zeros(2, 4, 6, dtype=torch.bool)
        masks[0, :, :2], masks[1, :, 4:] = True, True
        element = sample(pred_instances=InstanceData(masks=masks), gt_instance_map=labels(self.left))
        element.set_metainfo(dict(points=np.array([[[0.0, 1.0]], [[5.0, 2.0]]])))
        row = draw_sample(self.black, element, 24)
        for number, (x, y) in enumerate([(2, 6), (22, 10)]):  # (x + 0.5) * 4 - 0.5, rounded
            assert row['image'][y, x].tolist() == list(pictures.color_of(number))
        tint = (0.55 * np.array(pictures.color_of(1))).astype(np.uint8)
        assert (row['prediction'][2:14, 18:22] == tint).all()

    def test_caption_says_what_and_how_well(self) -> None:
        predicted = [[1, 0, 0, 0, 0, 1]] * 4
        truth = [[1, 1, 0, 0, 0, 255]] * 4  # intersection 4, union 8: the ignored column is out
        element = sample(gt_sem_seg=labels(truth), pred_sem_seg=labels(predicted))
        element.set_metainfo(dict(text='a  red\nball', kind='colour', subset='val'))
        assert caption(element) == 'IoU 0.50 · "a  red\nball" · val · colour'
        assert caption(sample()) == ''

    def test_caption_of_point_prompts_is_their_mean(self) -> None:
        masks = torch.zeros(2, 4, 6, dtype=torch.bool)
        masks[0, :, :2], masks[1, :, 4:] = True, True
        ids = labels([[3, 3, 0, 0, 9, 0]] * 4)  # IoU 1 and 1/2
        element = sample(pred_instances=InstanceData(masks=masks), gt_instance_map=ids)
        element.set_metainfo(dict(point_ids=np.array([3, 9])))
        assert caption(element) == 'IoU 0.75 (mean)'

    def test_table_keeps_columns_in_line_and_cuts_long_captions(self) -> None:
        cell = np.full((10, 60, 3), 50, np.uint8)
        table = pictures.compose(['a', 'b'], [dict(a=cell, b=cell), dict(b=cell)], ['x' * 99, ''])
        assert table.shape[1] == 2 * 60 + 3 * 4
        rows = [19, 19 + 10 + 19 + 4]
        assert (table[rows[0] : rows[0] + 10, 4:64] == 50).all()
        assert (table[rows[1] : rows[1] + 10, 4:64] == pictures.PAPER).all()
        assert (table[rows[1] : rows[1] + 10, 68:128] == 50).all()
        assert (table[:, -4:] == pictures.PAPER).all()

    def test_a_text_is_cut_to_the_width_down_to_nothing(self) -> None:
        font = pictures._font()
        for kept in ('a long ...', 'a ...', ' ...'):
            assert pictures._cut('a long  caption', font, math.ceil(font.getlength(kept))) == kept
        assert pictures._cut('a long  caption', font, 3) == pictures._cut('a long', font, -8) == ' ...'


class TestPredictionGridHook:
    def test_each_validation_writes_the_same_evenly_spread_samples(self, tmp_path, monkeypatch) -> None:
        drawn = []
        monkeypatch.setattr(prediction_grid_hook, 'caption', lambda sample: drawn.append(sample.text) or 'x')
        toy_runner(tmp_path, {'default_hooks.visualization.panel_size': 32}).train()
        assert names(tmp_path / 'vis' / 'val', '*') == ['iter_10.png', 'iter_20.png']
        # 10 samples in batches of 3, of which 3 are drawn: every 4th.
        assert drawn == 2 * ['square 0', 'square 4', 'square 8']
        with Image.open(tmp_path / 'vis' / 'val' / 'iter_20.png') as grid:
            assert grid.size == (3 * 32 + 4 * 4, 19 + 3 * (32 + 19 + 4))

    def test_cached_samples_without_an_image_are_left_out_and_counted(self, tmp_path) -> None:
        runner = toy_runner(tmp_path)
        messages = []
        runner.logger.info = messages.append
        hook = PredictionGridHook(num_images=None, panel_size=24)
        images = [torch.zeros(3, 4, 6, dtype=torch.uint8), torch.zeros(3, 0, 0, dtype=torch.uint8)]
        for inputs in (images, images[1:]):
            hook.after_val_iter(runner, 0, dict(inputs=inputs), [sample() for _ in inputs])
        hook.after_val_epoch(runner)
        assert names(tmp_path / 'vis' / 'val', '*') == ['iter_0.png']
        with Image.open(tmp_path / 'vis' / 'val' / 'iter_0.png') as grid:
            assert grid.size == (24 + 2 * 4, 19 + 16 + 19 + 4)  # a single row
        assert messages[-1].startswith('2 predictions not drawn')

    def test_only_the_main_process_draws(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr(prediction_grid_hook, 'is_main_process', lambda: False)
        toy_runner(tmp_path).val()
        assert not (tmp_path / 'vis').exists()

    def test_testing_draws_all_in_pages_when_asked(self, tmp_path: Path) -> None:
        hook = 'default_hooks.visualization'
        toy_runner(tmp_path / 'a', {f'{hook}.num_images': None}).test()
        assert not (tmp_path / 'a' / 'vis').exists()
        folder = tmp_path / 'pictures'
        options = {f'{hook}.num_images': None, f'{hook}.test': True, f'{hook}.out_dir': str(folder)}
        toy_runner(tmp_path / 'b', options | {f'{hook}.panel_size': 32}).test()
        assert names(folder / 'test', '*') == ['0001.png', '0002.png']
        heights = []
        for name in ('0001.png', '0002.png'):
            with Image.open(folder / 'test' / name) as page:
                heights.append(page.height)
        assert heights == [19 + 8 * 55, 19 + 2 * 55]

    def test_wrong_number_is_refused(self) -> None:
        with pytest.raises(ValueError, match='at least 1 or None, but got 0'):
            PredictionGridHook(num_images=0)
