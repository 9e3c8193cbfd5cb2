"""Ranks that predict other tasks, other numbers of batches and of steps: right results, and never a wait for ever."""

import pytest
import torch
import torch.distributed as dist
from rank_forks import on_ranks
from sharded_models import released, strategy
from tiny_models import TEXT, batch
from tiny_qwen_vl import pretrained, save_tiny_qwen_vl

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


def test_a_rank_that_fails_ends_the_others(tmp_path):
    with pytest.raises(AssertionError, match='(?s)ended with 1.*(Connection closed by peer|Connection reset by peer)'):
        on_ranks(2, _predicted, tmp_path, released(tmp_path), SHARES, (1, 1), errors=True)
