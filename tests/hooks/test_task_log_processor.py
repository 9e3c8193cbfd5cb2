"""Logged losses of tasks are sums over samples divided by their number, by hand."""

from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub
from mmengine.runner import LogProcessor

from genseg_mm.hooks import TaskLogProcessor
from genseg_mm.launch.update_based_train_loop import joined_outputs
from genseg_mm.registry import LOG_PROCESSORS

# Losses of single samples, by iteration and task, in batches of 2, 4, 4 and 2.
ITERATIONS = (
    dict(mask=[1.0], image=[5.0]),
    dict(mask=[2.0, 3.0, 4.0], image=[7.0]),
    dict(mask=[], image=[1.0, 2.0, 3.0, 6.0]),
    dict(mask=[], image=[4.0, 8.0]),
)


def logged(tasks: dict[str, list[float]]) -> dict[str, float]:
    """What a model gives of a batch."""
    size = sum(map(len, tasks.values()))
    values = dict(loss=sum(map(sum, tasks.values())) / size)
    values.update({f'loss_{task}': sum(losses) / size for task, losses in tasks.items()})
    return values | {f'num_samples_{task}': float(len(losses)) for task, losses in tasks.items()}


def micro_batches(tasks: dict[str, list[float]], size: int) -> list[dict[str, list[float]]]:
    samples = [(task, loss) for task, losses in tasks.items() for loss in losses]
    parts = [samples[start : start + size] for start in range(0, len(samples), size)]
    return [{task: [loss for own, loss in part if own == task] for task in tasks} for part in parts]


def lines(processor: LogProcessor, batch_size: int = 4) -> list[dict]:
    """The log's numbers after each iteration, an update of micro-batches."""
    hub = MessageHub(f'task_log_{id(processor)}')
    runner = SimpleNamespace(message_hub=hub, iter=0, max_iters=4, _train_loop=None)
    found = []
    for iteration, tasks in enumerate(ITERATIONS):
        hub.update_scalar('train/lr', 0.1)
        outputs = joined_outputs([logged(own) for own in micro_batches(tasks, batch_size)])
        for name, value in outputs.items():
            hub.update_scalar(f'train/{name}', value)
        runner.iter = iteration
        found.append(processor.get_log_after_iter(runner, iteration, 'train'))
    return found


def mean(task: str, start: int, stop: int) -> float:
    losses = [loss for own in ITERATIONS[start:stop] for loss in own[task]]
    return sum(losses) / len(losses)


@pytest.mark.parametrize('batch_size', [4, 2])  # of the micro-batches that make up an update
def test_windows_with_and_without_a_task(batch_size) -> None:
    found = lines(TaskLogProcessor(window_size=2, by_epoch=False), batch_size)
    tags = [tag for tag, _ in found]
    assert [tag['loss_mask'] for tag in tags[:3]] == pytest.approx([1.0, mean('mask', 0, 2), 3.0], rel=1e-6)
    assert 'loss_mask' not in tags[3] and 'loss_mask' not in found[3][1]
    assert [tag['loss_image'] for tag in tags] == pytest.approx(
        [5.0, mean('image', 0, 2), mean('image', 1, 3), mean('image', 2, 4)], rel=1e-6
    )
    assert tags[1]['loss'] == pytest.approx((3.0 + 4.0) / 2)  # as MMEngine has it
    assert not [name for tag in tags for name in tag if 'num_samples' in name]
    assert f'loss_image: {mean("image", 2, 4):.4f}' in found[3][1]


def test_custom_windows_and_prefixes() -> None:
    whole = dict(data_src='loss_mask', log_name='loss_mask_all', method_name='mean', window_size='global')
    processor = TaskLogProcessor(window_size=1, by_epoch=False, custom_cfg=[whole], log_with_hierarchy=True)
    tag, text = lines(processor)[-1]
    assert tag['train/loss_mask_all'] == pytest.approx(mean('mask', 0, 4), rel=1e-6)
    assert 'train/loss_mask' not in tag and 'loss_mask_all: 2.5000' in text
    own = dict(data_src='loss_image', method_name='mean', window_size=3)
    tag, _ = lines(TaskLogProcessor(window_size=1, by_epoch=False, custom_cfg=[own]))[-1]
    assert tag['loss_image'] == pytest.approx(mean('image', 1, 4), rel=1e-6)


def test_without_counts_it_is_mmengines() -> None:
    hub = MessageHub('task_log_plain')
    runner = SimpleNamespace(message_hub=hub, iter=0, max_iters=4, _train_loop=None)
    for loss in (1.0, 4.0):
        hub.update_scalar('train/lr', 0.1)
        hub.update_scalar('train/loss_mask', loss)
    ours, stock = (
        kind(window_size=2, by_epoch=False).get_log_after_iter(runner, 1, 'train')
        for kind in (TaskLogProcessor, LogProcessor)
    )
    assert ours == stock and ours[0]['loss_mask'] == 2.5
    assert LOG_PROCESSORS.get('genseg_mm.TaskLogProcessor') is TaskLogProcessor
