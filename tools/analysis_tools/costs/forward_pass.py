"""One prediction of a model on made-up input, with its FLOPs, time and memory booked to its parts."""

import itertools
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from families.activation_bytes import ShapesOnly
from mmengine.structures import PixelData
from torch import nn

from costs.flop_count import count_flops
from costs.model_parts import REST, phases
from costs.phase_meter import PhaseMeter, clock

NOISE = 0.001  # shares below it are not shown
TEXT = 'the large red object on the left'


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
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.no_grad(), torch.profiler.profile(activities=activities, profile_memory=True) as own:
        run()
    events = own.profiler.kineto_results.events()
    changes = [(one.start_ns(), one.nbytes()) for one in events if one.name() == '[memory]']
    held = itertools.accumulate(change for _, change in sorted(changes, key=lambda one: one[0]))
    return max(held, default=0)


def count_on_meta(parts: nn.Module, model: dict, size: tuple[int, int]) -> tuple[dict[str, int], list[str]]:
    """FLOPs by phase of parts from :func:`costs.without_weights.build_on_meta`, and what was left out."""
    images = torch.zeros(1, 3, *size, device='meta')
    with torch.no_grad(), ShapesOnly(), count_flops() as counter:
        meter = PhaseMeter(counter.get_total_flops)
        booked = meter.start_round()
        if not hasattr(parts, 'colorer'):
            left_out = _generate(parts, model, images, meter)
        else:
            left_out = ['what points do with the map']
            _color(parts.colorer, model['colorer'], images, meter)
    return {name: used for name, used in booked.items() if used}, left_out


def _color(colorer: nn.Module, cfg: dict, images: torch.Tensor, meter: PhaseMeter) -> None:
    if not (hasattr(colorer, 'unet') and hasattr(colorer, 'codec')):
        with meter.phase('colorer'):
            colorer(images)
        return
    latents = _encode(colorer.codec, images, meter)
    full = cfg.get('parity') == 'training'
    length = cfg.get('num_text_tokens') or (77 if full else 2)
    text = torch.zeros(1, length, colorer.unet.config.cross_attention_dim, device='meta')
    with meter.phase('denoise'):
        colorer.unet(latents, torch.zeros(1, device='meta'), encoder_hidden_states=text)
    _decode(colorer.codec, latents, meter)


def _encode(codec: nn.Module, images: torch.Tensor, meter: PhaseMeter) -> torch.Tensor:
    # Not its encode(): that turns autocast off, which the meta device does not have.
    with meter.phase('encode'):
        return codec._encode(images)


def _decode(codec: nn.Module, latents: torch.Tensor, meter: PhaseMeter) -> None:
    with meter.phase('decode'):
        codec._decode(latents)


def _generate(parts: nn.Module, model: dict, images: torch.Tensor, meter: PhaseMeter) -> list[str]:
    from genseg_mm.models.prompt_encoders import PromptEmbeddings

    latents = _encode(parts.codec, images, meter)
    length = model['prompt_encoder'].get('max_length', 512)
    with meter.phase('prompt'):
        _encode_prompt(parts.prompt_encoder, length, tuple(images.shape[-2:]))
    states = torch.zeros(1, length, parts.backbone.prompt_dims, device='meta')
    there = torch.ones(1, length, dtype=torch.bool, device='cpu')
    prompt = PromptEmbeddings(states, there)
    head = model.get('mask_head') or {}
    for _ in range(head.get('num_steps', 1)):
        with meter.phase('denoise'):
            has_image = torch.tensor([model.get('image_condition', True)], device='cpu')
            parts.backbone(latents, torch.ones(1, device='meta'), prompt, latents, has_image)
    trained_probe = head.get('mask_loss') == 'linear_bce'
    if (head.get('decode') or ('probe' if trained_probe else 'vae')) != 'vae':
        return ['the linear layer that reads the mask off the latents']
    _decode(parts.codec, latents, meter)
    return []


def _encode_prompt(encoder: nn.Module, length: int, size: tuple[int, int]) -> None:
    """Runs a text encoder on as many tokens; a Qwen-VL sees the picture too, whose tokens are among them."""
    if not hasattr(encoder, 'language_model'):
        encoder(input_ids=torch.zeros(1, length, dtype=torch.long, device='meta'))
        return
    width = encoder.config.text_config.hidden_size
    encoder.language_model(inputs_embeds=torch.zeros(1, length, width, device='meta'))
    vision = encoder.config.vision_config
    rows, columns = (side // vision.patch_size for side in size)
    rows, columns = (n // vision.spatial_merge_size * vision.spatial_merge_size for n in (rows, columns))
    values = 3 * vision.temporal_patch_size * vision.patch_size**2
    patches = torch.zeros(rows * columns, values, device='meta')
    encoder.visual(patches, grid_thw=torch.tensor([[1, rows, columns]], device='cpu'))
