"""What a model costs: parameters, FLOPs, time and memory of one pass on made-up input, booked to its parts.

For get_flops.py, profile_evaluation.py, benchmark_training_step.py, measure_families.py and models_without_weights.py.
"""

import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from mmengine.registry import DATASETS
from mmengine.structures import PixelData
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from genseg_mm.dataset_configs import walk

NOISE = 0.001  # shares below it are not shown
TEXT = 'the large red object on the left'
REST = 'rest'  # what no phase of a prediction is booked to
# What the counter cannot see, for the reports.
NOT_COUNTED = 'norms, activations, softmax, position codes, resizing, and what points and thresholds do with a map'


def input_size(cfg: Any) -> tuple[int, int]:
    """Height and width that the test pipeline resizes to.

    Where the model decides them (``NetworkResize``) those that the training pipeline resizes to; without a Resize those
    of the first test item.

    Raises:
        ValueError: If the config has no test data.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    if dataset is None:
        raise ValueError('the config has no test_dataloader that tells the size: expected --shape')
    resize = next(resizes(dataset), None)
    if resize is None and 'NetworkResize' in str(dataset):
        resize = next(resizes((cfg.get('train_dataloader') or {}).get('dataset') or {}), None)
        if resize is None:
            raise ValueError('the model decides the size of its pictures: expected --shape, but got none')
    if resize is not None:
        width, height = resize['scale']
        return height, width
    return tuple(DATASETS.build(dataset)[0]['inputs'].shape[-2:])


def resizes(dataset: Any) -> Iterator[dict]:
    """The configs of Resize with a scale in the pipelines of a dataset's config, through whatever joins datasets."""
    for own in walk(dataset):
        for transform in own.get('pipeline') or []:
            if str(transform.get('type')).endswith('Resize') and transform.get('scale'):
                yield transform


def parameters(model: nn.Module) -> list[dict[str, Any]]:
    """Rows ``part``, ``type``, ``total``, ``trainable``, ``frozen``, one per part.

    Parts are the model's children and, of a colorer, its own; children that store nothing are left out, and such as
    PatchCodec, whose matrices are buffers, have 0. A parameter that two parts share is counted once, for the first.
    """
    rows, seen = [], set()
    for name, part in _parts(model):
        own = [one for one in part.parameters() if id(one) not in seen]
        seen |= {id(one) for one in own}
        trainable = sum(one.numel() for one in own if one.requires_grad)
        total = sum(one.numel() for one in own)
        only_buffers = part.state_dict() and not any(True for _ in part.parameters())
        if total or only_buffers:
            rows.append(
                dict(
                    part=name,
                    type=type(_inner(part)).__name__,
                    total=total,
                    trainable=trainable,
                    frozen=total - trainable,
                )
            )
    return rows


def _parts(model: nn.Module) -> list[tuple[str, nn.Module]]:
    parts: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        if name == 'colorer' and len(list(child.children())) > 1:
            parts += [(f'colorer.{own}', module) for own, module in child.named_children()]
        parts.append((name, child))
    return [*parts, ('own', model)]  # after the parts, so that only what they leave counts


def _inner(part: nn.Module) -> nn.Module:
    """The network in a part that holds just one."""
    children = list(part.children())
    own = any(True for _ in part.parameters(recurse=False))
    return children[0] if len(children) == 1 and not own else part


def phases(model: nn.Module) -> list[tuple[Any, str, str]]:
    """Owner, method and name of each phase of a prediction, in order.

    GenMask: encode, prompt, denoise, decode, masks. Gen2Seg: encode, denoise, decode with Stable Diffusion, colorer
    (all, or what is left of it), prompting (points, boxes or automatic instances). Other models: their children.
    """
    if hasattr(model, 'mask_head') and hasattr(model, 'backbone'):
        return [
            (model.codec, 'encode', 'encode'),
            (model.prompt_encoder, 'forward', 'prompt'),
            (model.backbone, 'forward', 'denoise'),
            (model.mask_head, 'latents_to_grey', 'decode'),
            (model.mask_head, 'grey_to_logits', 'masks'),
        ]
    if hasattr(model, 'colorer'):
        found = colorer_phases(model.colorer)
        found += [(model, name, 'prompting') for name in ('prompt', 'automatic_instances')]
        return [own for own in found if hasattr(own[0], own[1])]
    return [(child, 'forward', name) for name, child in model.named_children() if name != 'data_preprocessor']


def colorer_phases(colorer: nn.Module) -> list[tuple[Any, str, str]]:
    """The phases inside of a colorer, and itself."""
    found: list[tuple[Any, str, str]] = []
    if hasattr(colorer, 'codec') and hasattr(colorer, 'unet'):
        found += [
            (colorer.codec, 'encode', 'encode'),
            (colorer.unet, 'forward', 'denoise'),
            (colorer.codec, 'decode', 'decode'),
        ]
    return [*found, (colorer, 'forward', 'colorer')]


class PhaseMeter:
    """Books a rising count to the phases during which it rises; what an inner phase used is not the outer one's.

    Args:
        count: The count now, such as :func:`clock` gives.
    """

    def __init__(self, count: Callable[[], float]) -> None:
        self.count = count
        self.rounds: list[dict[str, float]] = []
        self._inner: float = 0
        self._watched: list[tuple[Any, str]] = []

    def start_round(self) -> dict[str, float]:
        """Begins the next repeat; phases are booked to its dict, in the order in which they end."""
        self.rounds.append(defaultdict(int))
        return self.rounds[-1]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What rises inside is booked to this name."""
        outer, self._inner = self._inner, 0
        start = self.count()
        try:
            yield
        finally:
            used = self.count() - start
            self.rounds[-1][name] += used - self._inner
            self._inner = outer + used

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Books every call of a method of one object to a name, until :meth:`release`."""
        function = getattr(owner, method)

        def measured(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return function(*args, **kwargs)

        setattr(owner, method, measured)
        self._watched.append((owner, method))

    def release(self) -> None:
        """Gives the watched methods back."""
        for owner, method in reversed(self._watched):
            owner.__dict__.pop(method, None)
        self._watched.clear()


def clock(device: torch.device, cpu_time: bool = False) -> Callable[[], float]:
    """The time in seconds, after all that a GPU has been given is done.

    Args:
        device: That the model is on.
        cpu_time: CPU seconds of this process (all its threads) in place of the clock's, for a busy machine.
    """
    read = time.process_time if cpu_time else time.perf_counter

    def now() -> float:
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        return read()

    return now


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


@contextmanager
def count_flops() -> Iterator[FlopCounterMode]:
    """Torch's counter of products, convolutions and attention on any device, the meta device too.

    A multiplication and an addition are two operations (mmdet's and mmseg's get_flops count them as one). Torch's own
    counter passes the CPU's fused attention and the fused layers of ``nn.MultiheadAttention`` by; here they count.
    Causal masks save nothing.
    """
    own = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False, custom_mapping=own) as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def made_up_batch(size: tuple[int, int], batch: int = 1, num_prompts: int = 8) -> dict[str, Any]:
    """A loader's batch: noise pictures (uint8, BGR) with an expression and points, one for each of as many masks.

    Args:
        size: Height and width, of the pictures and of their originals.
        batch: Number of pictures.
        num_prompts: Points of each.
    """
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(0)
    data: dict[str, Any] = dict(inputs=[], data_samples=[])
    for index in range(batch):
        image = torch.randint(0, 256, (3, *size), generator=generator).to(torch.uint8)
        places = torch.rand(num_prompts, 1, 2, generator=generator)
        points = (places * torch.tensor([size[1] - 1, size[0] - 1])).round().numpy()
        meta = dict(
            img_shape=size, ori_shape=size, text=TEXT, task='mask', sample_idx=index,
            img_path=f'noise {index}',
        )  # fmt: skip
        if num_prompts:
            meta.update(points=points, point_labels=torch.ones(num_prompts, 1).numpy())
        sample = SegDataSample(metainfo=meta)
        sample.gt_sem_seg = PixelData(data=torch.zeros(1, *size, dtype=torch.uint8))
        data['inputs'].append(image)
        data['data_samples'].append(sample)
    return data


def prediction(model: nn.Module, batch: dict[str, Any]) -> Callable[[], Any]:
    """A function that predicts the batch anew at each call; the samples keep no earlier prediction."""

    def run() -> Any:
        samples = [sample.clone() for sample in batch['data_samples']]
        return model.test_step(dict(inputs=list(batch['inputs']), data_samples=samples))

    return run


def count(model: nn.Module, run: Callable[[], Any]) -> dict[str, int]:
    """FLOPs of one call by phase."""
    with torch.no_grad(), count_flops() as counter:
        meter = PhaseMeter(counter.get_total_flops)
        return _booked(model, run, meter)


@contextmanager
def watched(model: nn.Module, meter: PhaseMeter, prefix: str = '') -> Iterator[None]:
    """Books the phases of a model's predictions to their names, with something before them."""
    for owner, method, name in phases(model):
        meter.watch(owner, method, prefix + name)
    try:
        yield
    finally:
        meter.release()


def _booked(model: nn.Module, run: Callable[[], Any], meter: PhaseMeter) -> dict[str, Any]:
    with watched(model, meter):
        booked = meter.start_round()
        with meter.phase(REST):
            run()
    return {name: used for name, used in booked.items() if used}


def latency(
    model: nn.Module,
    run: Callable[[], Any],
    device: torch.device,
    repeats: int,
    warmup: int,
    amp: torch.dtype | None = None,
) -> list[dict[str, float]]:
    """Seconds by phase, with ``total``, of each of ``repeats`` calls after ``warmup`` untimed ones."""
    lowered = torch.autocast(device.type, amp) if amp else nullcontext()
    rounds = []
    with torch.no_grad(), lowered:
        for index in range(warmup + repeats):
            meter = PhaseMeter(clock(device))
            booked = _booked(model, run, meter)
            if index >= warmup:
                rounds.append({**booked, 'total': sum(booked.values())})
    return rounds


def quartiles(rounds: list[dict[str, float]]) -> dict[str, tuple[float, float, float]]:
    """Phase -> lower quartile, median, upper quartile over the repeats, linearly interpolated."""
    found = {}
    for name in dict.fromkeys(itertools.chain.from_iterable(rounds)):
        values = [own.get(name, 0.0) for own in rounds]
        if len(values) == 1:
            found[name] = (values[0],) * 3
        else:
            low, middle, high = statistics.quantiles(values, n=4, method='inclusive')
            found[name] = (low, middle, high)
    return found


def peak_memory(run: Callable[[], Any], device: torch.device) -> int:
    """Most bytes that torch holds at a time during one call, on top of what it held before (weights and inputs)."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        with torch.no_grad():
            run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.no_grad():
        return most_held(run)


def most_held(run: Callable[[], Any]) -> int:
    """Most bytes that torch's CPU allocator holds at a time during one call, on top of what it held before."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as own:
        run()
    events = own.profiler.kineto_results.events()
    changes = [(one.start_ns(), one.nbytes()) for one in events if one.name() == '[memory]']
    held = itertools.accumulate(change for _, change in sorted(changes, key=lambda one: one[0]))
    return max(held, default=0)
