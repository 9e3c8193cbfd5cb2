"""Ranks that predict other tasks, other numbers of batches and of steps: right results, and never a wait for ever."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from rank_forks import on_ranks
from sharded_models import released, strategy
from tiny_models import TEXT, batch
from tiny_qwen_vl import pretrained, save_tiny_qwen_vl

from genseg_mm.launch import SafeFlexibleRunner
from genseg_mm.registry import METRICS

# Of each rank its batches, each a list of tasks: first another task, then a mix, then more of them.
SHARES = [
    [['mask', 'mask'], ['image'], ['mask', 'image']],
    [['image', 'image'], ['mask'], ['image'], ['mask', 'mask'], ['mask']],
]


def qwen_vl(folder) -> dict:
    """Its vision tower, sharded like its language model, runs for pictures of masks alone."""
    folder = save_tiny_qwen_vl(folder)
    return dict(
        type='genseg_mm.QwenVLPromptEncoder',
        encoder=pretrained(folder),
        processor=folder,
        max_length=48,
        padding='max_length',
    )


def results_of(samples: list) -> list[torch.Tensor]:
    return [own.seg_logits.data if 'seg_logits' in own else own.pred_img.data for own in samples]


def _predicted(folder, config, shares, failing=None):
    """Results of this rank's batches, or of all ranks' where there is one alone; and of a training step afterwards."""
    own = strategy(folder)
    torch.manual_seed(0)
    own.prepare(config, optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)))
    model, world = own.model, own.world_size
    losses = []
    for _ in range(2):
        model.eval()
        results = []
        with torch.no_grad(), own.uneven_passes() as wait_for_others:
            for rank, share in enumerate(shares):
                if world > 1 and rank != dist.get_rank():
                    continue
                for number, tasks in enumerate(share):
                    if failing == (rank, number):
                        raise ValueError(f'rank {rank} cannot read its picture')
                    results += results_of(model.test_step(batch(tasks, seed=10 * rank + number)))
            wait_for_others()
        model.train()
        ranks = range(2) if world == 1 else [dist.get_rank()]
        parts = [batch(['mask', 'image'], seed=rank) for rank in ranks]
        # A rank's samples are every other one of the batch.
        samples = {
            key: [own for each in zip(*(part[key] for part in parts), strict=True) for own in each] for key in parts[0]
        }
        losses.append(model.train_step(samples, own.optim_wrapper)['loss'].item())
    return results, losses


@pytest.mark.parametrize('encoder', ['t5', 'qwen_vl'])
def test_ranks_predict_what_one_process_does(tmp_path, encoder):
    """Also after a training step, which finds the model as it was without an evaluation before it."""
    config = released(tmp_path)
    config['generation'] = dict(num_steps=2, guidance_scale=3.0)
    config['prompt_encoder']['encoder'] = dict(TEXT, dropout_rate=0.0)
    if encoder == 'qwen_vl':
        config['prompt_encoder'] = qwen_vl(tmp_path / 'qwen_vl')
    ((expected, losses),) = on_ranks(1, _predicted, tmp_path, config, SHARES)
    ranks = on_ranks(2, _predicted, tmp_path, config, SHARES)
    results = [own for own_results, _ in ranks for own in own_results]
    assert len(results) == len(expected) == sum(len(tasks) for share in SHARES for tasks in share)
    for own, value in zip(results, expected, strict=True):
        most = 1 if value.dtype == torch.uint8 else 1e-4 * value.abs().max().item()
        assert (own.float() - value.float()).abs().max() <= most
    assert len(results[0].unique()) > 1
    for _, own in ranks:
        assert own == pytest.approx(losses, rel=1e-5)


@METRICS.register_module()
class SumsOfResults(BaseMetric):
    """The task of each item, and the sum of what was predicted for it, in their order."""

    def process(self, data_batch: dict, data_samples: list) -> None:
        for sample in data_samples:
            logits = sample.get('seg_logits')
            data = sample['pred_img']['data'] if logits is None else logits['data']
            self.results.append((sample['task'], data.double().abs().mean().item()))

    def compute_metrics(self, results: list) -> dict:
        return dict(tasks=[task for task, _ in results], values=[value for _, value in results])


def _validated(folder, model):
    """The metrics of a validation of masks and pictures, in batches of two."""
    cfg = Config.fromfile(Path(__file__).parents[2] / 'configs/genmask/genmask_wan_shapes_tiny.py')
    masks = dict(cfg.val_dataloader.dataset, num_scenes=2, max_items=3)
    pictures = dict(masks, task='text_to_image', max_items=2)
    loader = dict(
        batch_size=2,
        dataset=dict(type='genseg_mm.MixedDataset', datasets=[masks, pictures]),
        sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
    )
    changes = dict(
        model=model,
        work_dir=str(folder),
        launcher='pytorch' if dist.is_initialized() else 'none',
        experiment_name=f'validated{dist.is_initialized()}',
        strategy=dict(type='genseg_mm.FSDP2Strategy'),
        env_cfg=dict(dist_cfg=dict(backend='gloo')),
        val_dataloader=loader,
        val_evaluator=dict(type='SumsOfResults'),
        default_hooks=dict(visualization=None),
        log_level='WARNING',
        **dict.fromkeys(('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler')),
        **{f'test_{key}': None for key in ('dataloader', 'cfg', 'evaluator')},
    )
    for key, value in changes.items():
        cfg[key] = value
    return SafeFlexibleRunner.from_cfg(cfg).val()


def test_a_validation_of_several_tasks(tmp_path):
    model = released(tmp_path)
    model['generation'] = dict(num_steps=2, guidance_scale=3.0)
    (expected,) = on_ranks(1, _validated, tmp_path, model)
    assert expected['tasks'] == ['mask'] * 3 + ['image'] * (len(expected['tasks']) - 3) and len(expected['tasks']) == 5
    for own in on_ranks(2, _validated, tmp_path, model):  # one of them begins with masks, one with both
        assert own['tasks'] == expected['tasks']
        assert own['values'] == pytest.approx(expected['values'], rel=1e-4)


def test_a_rank_that_fails_ends_the_others(tmp_path):
    with pytest.raises(AssertionError, match='(?s)ended with 1.*(Connection closed by peer|Connection reset by peer)'):
        on_ranks(2, _predicted, tmp_path, released(tmp_path), SHARES, (1, 1), errors=True)
