"""What a config needs: its model built without values, how it is trained, and whether that fits."""

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from genseg_mm.dataset_configs import walk
from genseg_mm.datasets.cached_encodings import kinds_always_cached
from genseg_mm.files.tensors import write_tensors
from genseg_mm.hub_layouts import sources_of
from genseg_mm.hub_layouts.folders import write_repository
from genseg_mm.launch.processes import one_copy_ddp
from genseg_mm.launch.update_based_train_loop import num_micro_batches
from genseg_mm.leaderboard.markdown import table_lines
from genseg_mm.models.cached_inputs import parts_never_asked
from genseg_mm.models.pretrained_parts import without_values
from genseg_mm.planning import memory_plan
from genseg_mm.planning.memory_plan import GB, Activations, Setup, Sizes
from genseg_mm.registry import MODELS, class_name


@dataclass
class TrainingPlan:
    """The memory of a config's training.

    Attributes:
        sizes: Of its model.
        setup: How it is trained as it is written.
        activations: Without and with gradient checkpointing.
        size: Height and width of its pictures.
    """

    sizes: Sizes
    setup: Setup
    activations: dict[bool, Activations]
    size: tuple[int, int]

    def per_card(self, setup: Setup | None = None) -> dict[str, int]:
        """Bytes on one card by term, as the config is written or otherwise."""
        setup = setup or self.setup
        return memory_plan.per_card(self.sizes, setup, self.activations[setup.checkpointing])

    def knobs_that_fit(self, memory: float) -> Iterator[tuple[str, Setup]]:
        """Of what can be turned, what makes it fit so many bytes, the cheapest first."""
        told = set()
        for text, setup in memory_plan.knobs(self.setup):
            kind = text.rpartition(', batch')[0]
            if kind not in told and memory_plan.fits(self.per_card(setup), memory):
                told.add(kind)
                yield text, setup

    def largest_batch(self, memory: float) -> int:
        """Most pictures per card and micro-batch that fit so many bytes; 0 where not even one does."""
        if not memory_plan.fits(self.per_card(replace(self.setup, batch=0)), memory):
            return 0
        own = self.activations[self.setup.checkpointing]
        without = memory_plan.bytes_before(self.sizes, self.setup, own)
        return max(0, math.floor((memory - without) / max(own.per_picture, 1)))


def plan_training(
    cfg: Config,
    gpus: int,
    gpus_per_node: int = 8,
    known: dict[str, tuple[Sizes, dict[bool, Activations]]] | None = None,
) -> TrainingPlan:
    """The plan of a config on so many cards; nothing is downloaded, nothing is allocated.

    Args:
        cfg: Of a training.
        gpus: Cards in all.
        gpus_per_node: Cards of a machine.
        known: What was measured of other configs, and now of this one: many differ in what takes no memory.

    Raises:
        ValueError: If the layout of a repository that it names is not known, or its batch does not divide.
    """
    setup, size, length = (
        setup_of(cfg, gpus, gpus_per_node),
        picture_size(cfg),
        prompt_length(cfg.model.get('prompt_encoder') or dict(type='')),
    )
    parts = {key: cfg.model.get(key) for key in ('type', 'codec', 'prompt_encoder', 'backbone', 'colorer')}
    key = repr((parts, cfg.optim_wrapper.get('type'), cfg.optim_wrapper.optimizer, size, length))
    known = {} if known is None else known
    if key not in known:
        model = build_without_values(cfg.model.to_dict()).train()
        low = memory_plan.computes_low(cfg.optim_wrapper)
        known[key] = (
            memory_plan.measured_sizes(model, cfg.optim_wrapper),
            memory_plan.measure_activations(model, size, length, low),
        )
    return TrainingPlan(known[key][0], setup, known[key][1], size)


def build_without_values(model: dict[str, Any]) -> nn.Module:
    """The model of a config with all of its parameters on the meta device; released parts by their known layouts."""
    layouts = Path(_layouts().name)
    with tempfile.TemporaryDirectory() as folder:
        folders = {
            source.repository: write_repository(source.repository, layouts, layers=None, weights=False)
            for source in sources_of(model)
        }
        model = _renamed(model, folders)
        with without_values():
            return MODELS.build(_with_stored_prompt(model, Path(folder)))


@cache
def _layouts() -> tempfile.TemporaryDirectory:
    """Released repositories without weights, written once in a process, for as long as it lives."""
    return tempfile.TemporaryDirectory()


def _with_stored_prompt(model: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The config, with zeros for the prompt that a DiT colorer embeds once, and without its prompt encoder."""
    colorer = model.get('colorer') or {}
    if not colorer.get('prompt_encoder'):
        return model
    backbone = MODELS.build(colorer['backbone'])
    length, width = (
        prompt_length(colorer['prompt_encoder']),
        getattr(backbone.transformer.config, 'pooled_projection_dim', None),
    )
    parts = dict(states=torch.zeros(1, length, backbone.prompt_dims), mask=torch.ones(1, length, dtype=torch.bool))
    if width is not None:
        parts['pooled'] = torch.zeros(1, width)
    write_tensors(folder / 'prompt.safetensors', parts)
    stored = dict(colorer, prompt_encoder=None, prompt_embedding=str(folder / 'prompt.safetensors'))
    return dict(model, colorer=stored)


def _renamed(config: Any, folders: Mapping[str, Path]) -> Any:
    if isinstance(config, dict):
        return {key: _renamed(value, folders) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_renamed(value, folders) for value in config)
    return str(folders[config]) if isinstance(config, str) and config in folders else config


def setup_of(cfg: Config, gpus: int, gpus_per_node: int = 8) -> Setup:
    """How a config trains on so many cards.

    Raises:
        ValueError: If its global batch does not divide.
    """
    strategy = cfg.get('strategy') or {}
    batch = cfg.train_dataloader.batch_size
    total = cfg.get('global_batch_size')
    accumulation = cfg.optim_wrapper.get('accumulative_counts', 1)
    if total is not None:
        accumulation = num_micro_batches(total, batch, gpus)
    hooks = [*(cfg.get('custom_hooks') or []), *(cfg.get('default_hooks') or {}).values()]
    part = cfg.model.get('backbone') or cfg.model.get('colorer') or {}
    return Setup(
        gpus=gpus,
        gpus_per_node=gpus_per_node,
        batch=batch,
        accumulation=accumulation,
        sharded=class_name(strategy.get('type', '')) == 'FSDP2Strategy',
        reduce_each_micro_batch=bool(strategy.get('reduce_each_micro_batch')),
        offload=bool(strategy.get('offload')),
        checkpointing=bool(part.get('gradient_checkpointing')),
        ema=any('EMAHook' in class_name(hook.get('type', '')) for hook in hooks if hook),
        cached=parts_never_asked(kinds_always_cached(cfg.train_dataloader.dataset)),
        validates=bool(cfg.get('val_cfg')),
        views=bool((cfg.get('model_wrapper_cfg') or one_copy_ddp()).get('gradient_as_bucket_view')),
    )


def picture_size(cfg: Config) -> tuple[int, int]:
    """Height and width of the training's pictures, the largest that a Resize or crop of its pipelines gives.

    Raises:
        ValueError: If none says a size.
    """
    found = []
    for own in walk(cfg.train_dataloader.dataset):
        for transform in own.get('pipeline') or []:
            size = transform.get('crop_size') or transform.get('scale')
            if isinstance(size, int):
                found.append((size, size))
            elif isinstance(size, (list, tuple)) and all(isinstance(side, int) and side < 10**5 for side in size):
                is_crop = 'crop_size' in transform
                found.append(tuple(size) if is_crop else tuple(size)[::-1])
    if own := cfg.train_dataloader.dataset.get('image_size'):
        found.append((own, own) if isinstance(own, int) else tuple(own))
    if not found:
        raise ValueError(
            'train_dataloader.dataset: expected a Resize or crop with a size in its pipelines, but got none'
        )
    return max(found, key=lambda size: size[0] * size[1])


def prompt_length(encoder: Mapping[str, Any]) -> int:
    """Most tokens that a prompt encoder of this config gives to the transformer."""
    if encoder.get('keep') == 'pooled':
        return 0
    if 'parts' not in encoder:
        return encoder.get('max_length', 77 if class_name(encoder['type']) == 'CLIPPromptEncoder' else 512)
    first = [row[0] if isinstance(row, (list, tuple)) else row for row in encoder['parts']]
    return encoder.get('length') or sum(map(prompt_length, first))


def page(name: str, plan: TrainingPlan, memory: float) -> str:
    """A plan for people."""
    terms, setup = plan.per_card(), plan.setup
    total = sum(terms.values())
    kind = 'FSDP2' if setup.sharded else 'DDP' if setup.gpus > 1 else 'one card'
    lines = [
        f'{name}: {setup.gpus} x {memory / GB:.0f} GB, {kind}, {setup.batch} x {setup.accumulation} pictures of '
        f'{plan.size[1]} x {plan.size[0]} per card and update, checkpointing {"on" if setup.checkpointing else "off"}',
        *(f'  {term:<24}{value / GB:8.2f} GB' for term, value in terms.items() if value >= 0.005 * GB),
        f'  {"together":<24}{total / GB:8.2f} GB per card',
        f'  host memory of a machine {memory_plan.host_bytes(plan.sizes, setup) / GB:8.2f} GB',
        f'  checkpoint               {memory_plan.checkpoint_bytes(plan.sizes, setup) / GB:8.2f} GB',
    ]
    if total <= memory:
        lines.append(f'fits; the largest batch per card would be {plan.largest_batch(memory)}')
        return '\n'.join(lines)
    lines.append(f'does not fit: {(total - memory) / GB:.1f} GB too much')
    found = list(plan.knobs_that_fit(memory))[:3]
    for text, own in found:
        lines.append(f'  would fit: {text} ({sum(plan.per_card(own).values()) / GB:.1f} GB)')
    if not found:
        lines.append('  nothing here makes it fit: train adapters (a *_lora.py config) or take a smaller model')
    return '\n'.join(lines)


def numbers(plan: TrainingPlan) -> dict[str, Any]:
    """A plan for programs; bytes."""
    return dict(
        setup=asdict(plan.setup),
        size=plan.size,
        per_card=plan.per_card(),
        host=memory_plan.host_bytes(plan.sizes, plan.setup),
        checkpoint=memory_plan.checkpoint_bytes(plan.sizes, plan.setup),
        activations={'on' if on else 'off': own._asdict() for on, own in plan.activations.items()},
        sizes=plan.sizes._asdict(),
    )


def table(plans: Mapping[str, TrainingPlan], memory: float) -> str:
    """A Markdown table with a row for each config."""
    head = ['config', 'cards', 'per card', 'states', 'frozen', 'activations', 'together', 'fits', 'host', 'checkpoint']
    rows = []
    for name, plan in plans.items():
        terms, setup = plan.per_card(), plan.setup
        total = sum(terms.values())
        frozen = sum(value for term, value in terms.items() if term.startswith('frozen'))
        if total <= memory:
            verdict = f'yes, up to batch {plan.largest_batch(memory)}'
        else:
            text, _ = next(plan.knobs_that_fit(memory), ('no', setup))
            verdict = text if text == 'no' else f'no; {text}'
        how = 'FSDP2' if setup.sharded else 'DDP' if setup.gpus > 1 else 'one'
        rows.append([
            f'`{Path(name).name}`', f'{setup.gpus}, {how}', f'{setup.batch} x {setup.accumulation}',
            _gb(total - frozen - terms['activations']), _gb(frozen), _gb(terms['activations']), _gb(total), verdict,
            _gb(memory_plan.host_bytes(plan.sizes, setup)), _gb(memory_plan.checkpoint_bytes(plan.sizes, setup)),
        ])  # fmt: skip
    return '\n'.join(table_lines(head, rows))


def _gb(value: float) -> str:
    return f'{value / GB:.1f}'
