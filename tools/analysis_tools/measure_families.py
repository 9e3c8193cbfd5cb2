"""Memory and step time of every DiT family: measured on tiny models, estimated for the released ones.

    python tools/analysis_tools/measure_families.py

Tiny models (one per family, random): a training step is timed; what its forward pass keeps for the backward pass and
the peak of both are measured, and compared with what the meta device says for the same model.
Released models (released_families.py): built on the meta device, without weights: parameters, what the
forward pass at --size with an image condition keeps, with gradient checkpointing (plus the block that is being computed
again) and without; weights, gradients and AdamW states; which trainings fit one 80 GB card, and which need sharding.

Not counted: gradients of activations, the encoders' own forward passes, buffers of the kernels, fragmentation. On the
tiny models the real peak is up to a tenth above the estimate.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from costs import PhaseMeter, clock, most_held
from released_families import FROZEN, FULL, TINY
from torch import Tensor, nn

from genseg_mm import launch
from genseg_mm.models import DiTBackbone
from genseg_mm.models.dit_families import FAMILIES
from genseg_mm.models.prompt_encoders import PromptEmbeddings
from genseg_mm.planning.kept_bytes import SavedBytes, ShapesOnly, blocks, largest_block

GB = 1e9
CARD = 80 * GB  # of the 85 that an '80 GB' card has: the rest is left to the context and to fragments
CARDS = 8

# bytes per parameter: weights, gradients, AdamW's two moments
MIXED = 4 + 4 + 8  # float32 weights, bfloat16 by autocast
PURE = 2 + 2 + 4  # all bfloat16
FROZEN_WEIGHT = 2  # bfloat16
REGIMES = {'mixed': 'bf16 mixed', 'pure': 'pure bf16', 'lora': 'LoRA'}
VAE_WEIGHT = 4  # the configs leave the frozen autoencoder in float32
PHASES = ('forward', 'backward', 'optimizer')


def parse_args() -> argparse.Namespace:
    parser = launch.ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--families', nargs='+', choices=sorted(FAMILIES), default=sorted(FAMILIES))
    parser.add_argument('--only', choices=['tiny', 'full'], help='one of the two parts')
    parser.add_argument('--models', nargs='+', choices=FULL, help='released models (default: all of --families)')
    parser.add_argument('--size', type=int, default=512, help='side of the image (default: 512)')
    parser.add_argument('--text-length', type=int, default=512, help='prompt tokens (default: 512)')
    parser.add_argument('--batch-sizes', type=int, nargs='+', default=[1, 8])
    parser.add_argument('--lora-rank', type=int, default=16)
    parser.add_argument('--iters', type=int, default=10, help='timed steps of a tiny model')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads of torch')
    parser.add_argument(
        '--cpu-time', action='store_true', help="CPU seconds instead of the clock's, for a busy machine"
    )
    parser.add_argument('--out', default='work_dirs/measure_families', help='folder')
    args = parser.parse_args()
    if min(args.size, args.text_length, args.lora_rank, args.iters, *args.batch_sizes) < 1:
        parser.error('--size, --text-length, --lora-rank, --iters and --batch-sizes must be at least 1')
    return args


def build(family: str, transformer: dict, device: str, **options: Any) -> DiTBackbone:
    """A random backbone in training mode; on the meta device it has no weights."""
    with torch.device(device):
        return DiTBackbone(family=family, transformer=transformer, **options).train()


def inputs(backbone: DiTBackbone, device: str, batch: int, size: int, text_length: int) -> tuple[tuple, Tensor]:
    """Arguments of ``backbone`` for samples with an image, and a target; masks are real on every device."""
    shape = (batch, backbone.latent_channels, size, size)
    generator = None if device == 'meta' else torch.Generator().manual_seed(0)
    noisy, image, target = (torch.randn(shape, generator=generator, device=device) for _ in range(3))
    states = torch.randn((batch, text_length, backbone.prompt_dims), generator=generator, device=device)
    prompt = PromptEmbeddings(states, torch.ones(batch, text_length, dtype=torch.bool))
    sigma = torch.full((batch,), 0.9, device=device)
    return (noisy, sigma, prompt, image, torch.ones(batch, dtype=torch.bool)), target


def kept_bytes(
    backbone: DiTBackbone, device: str, batch: int, size: int, text_length: int, autocast: bool = False
) -> dict[str, int]:
    """What a forward pass keeps for the backward pass, and the largest block's part of it.

    Args:
        backbone: On ``device``.
        device: 'meta' or 'cpu'.
        batch: Batch size.
        size: Side of the latents in cells.
        text_length: Prompt tokens.
        autocast: Under bfloat16 autocast.

    Returns:
        'total' and 'block' in bytes; with gradient checkpointing 'block' is 0.
    """
    arguments, target = inputs(backbone, device, batch, size, text_length)
    saved = SavedBytes(backbone)
    real = torch.autocast('cpu', torch.bfloat16, enabled=autocast)
    with (
        ShapesOnly(autocast) if device == 'meta' else real,
        saved,
        largest_block(backbone.transformer, saved) as largest,
    ):
        torch.nn.functional.mse_loss(backbone(*arguments), target)
    return dict(total=saved.total, block=largest['bytes'])


def measure_tiny(
    family: str, iters: int, batch: int = 32, size: int = 16, text_length: int = 16, cpu_time: bool = False
) -> dict[str, Any]:
    """Times and memory of training steps of a tiny model, and the memory as the meta device estimates it."""
    shape = (batch, size, text_length)
    result = dict(family=family, batch=batch, size=size, text_length=text_length)
    for kind, device in (('measured', 'cpu'), ('estimated', 'meta')):
        plain, checkpointed = (build(family, TINY[family], device, gradient_checkpointing=on) for on in (False, True))
        off = kept_bytes(plain, device, *shape)
        on = kept_bytes(checkpointed, device, *shape)['total']
        autocast = kept_bytes(plain, device, *shape, autocast=True)['total']
        peaks = dict(peak_off=off['total'], peak_on=on + off['block'])
        if device == 'cpu':
            peaks = dict(peak_off=peak_bytes(plain, *shape), peak_on=peak_bytes(checkpointed, *shape))
            result.update(parameters=num_parameters(plain), seconds=step_seconds(plain, iters, *shape, cpu_time))
        result[kind] = dict(off=off['total'], on=on, autocast=autocast, **peaks)
    return result


def peak_bytes(backbone: DiTBackbone, batch: int, size: int, text_length: int) -> int:
    """Most memory that torch holds at a time during a forward and backward pass, on top of weights and inputs."""
    arguments, target = inputs(backbone, 'cpu', batch, size, text_length)

    def step() -> None:
        torch.nn.functional.mse_loss(backbone(*arguments), target).backward()

    held = most_held(step)
    backbone.zero_grad()
    return held


def step_seconds(
    backbone: DiTBackbone, iters: int, batch: int, size: int, text_length: int, cpu_time: bool
) -> dict[str, float]:
    """Median seconds of the phases of ``iters`` training steps after one."""
    optimizer = torch.optim.AdamW(backbone.parameters(), fused=True)
    arguments, target = inputs(backbone, 'cpu', batch, size, text_length)
    meter = PhaseMeter(clock(torch.device('cpu'), cpu_time))
    for _ in range(iters + 1):
        meter.start_round()
        with meter.phase('forward'):
            loss = torch.nn.functional.mse_loss(backbone(*arguments), target)
        with meter.phase('backward'):
            loss.backward()
        with meter.phase('optimizer'):
            optimizer.step()
            optimizer.zero_grad()
    return {phase: statistics.median(step[phase] for step in meter.rounds[1:]) for phase in PHASES}


def num_parameters(model: nn.Module, trained_only: bool = False) -> int:
    """Number of (trained) parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained_only)


def released_numbers(model: dict[str, Any]) -> tuple[int, int]:
    """Parameters and stored buffers of a transformer of ``FULL``, before its family prepares it for GenMask.

    SD3 has its table of positions in the weight file besides the parameters, and in its published size.
    """
    import diffusers

    with torch.device('meta'):
        kind = getattr(diffusers, FAMILIES[model['family']].transformer_class)
        transformer = kind(**model['transformer'])
    parameters = num_parameters(transformer)
    stored = sum(tensor.numel() for tensor in transformer.state_dict().values())
    return parameters, stored - parameters


def frozen_parameters(name: str) -> int:
    """Parameters of an autoencoder or prompt encoder of ``FROZEN``, built on the meta device."""
    import diffusers
    import transformers

    dotted, arguments, _, _ = FROZEN[name]
    library, _, class_name = dotted.partition('.')
    kind = getattr(dict(diffusers=diffusers, transformers=transformers)[library], class_name)
    with torch.device('meta'):
        model = kind(**arguments) if library == 'diffusers' else kind(kind.config_class(**arguments))
    return num_parameters(model)


def measure_activations(model: dict[str, Any], args: argparse.Namespace, regime: str) -> dict[str, dict[str, int]]:
    """Batch size -> bytes without ('off') and with gradient checkpointing ('on', the block computed again included)."""
    lora = dict(r=args.lora_rank, lora_alpha=args.lora_rank) if regime == 'lora' else None
    backbone = build(model['family'], model['transformer'], 'meta', lora=lora)
    if regime != 'mixed':
        backbone.to(torch.bfloat16)
    shape = (args.size // model['stride'], args.text_length, regime == 'mixed')
    result: dict[str, dict[str, int]] = {}
    for batch in args.batch_sizes:
        backbone.transformer.disable_gradient_checkpointing()
        off = kept_bytes(backbone, 'meta', batch, *shape)
        backbone.transformer.enable_gradient_checkpointing()
        on = kept_bytes(backbone, 'meta', batch, *shape)
        result[str(batch)] = dict(off=off['total'], on=on['total'] + off['block'])
    return result


def measure_full(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Parameters, activations and frozen parts of a released model."""
    model = FULL[name]
    released, buffers = released_numbers(model)
    backbone = build(model['family'], model['transformer'], 'meta')
    lora = dict(r=args.lora_rank, lora_alpha=args.lora_rank)
    adapted = build(model['family'], model['transformer'], 'meta', lora=lora)
    result = dict(
        name=name,
        family=model['family'],
        source=model['source'],
        published=model['published'],
        released_parameters=released,
        released_buffers=buffers,
        parameters=num_parameters(backbone),
        adapters=num_parameters(adapted, trained_only=True),
        largest_block=max(num_parameters(block) for block in blocks(backbone.transformer)),
        vae_bytes=VAE_WEIGHT * frozen_parameters(model['vae']),
        encoders=model['encoders'],
        encoder_bytes=FROZEN_WEIGHT * sum(map(frozen_parameters, model['encoders'])),
        activations={regime: measure_activations(model, args, regime) for regime in REGIMES},
    )
    return {**result, 'fits': fits(result)}


def state_bytes(regime: str, parameters: int, adapters: int = 0) -> int:
    """Weights, gradients and AdamW states of the transformer.

    Args:
        regime: 'mixed' (float32 weights under autocast), 'pure' (all bfloat16) or 'lora' (frozen bfloat16 weights,
            trained parameters as in 'mixed').
        parameters: All parameters but the adapters.
        adapters: With 'lora': parameters that are trained.

    Raises:
        ValueError: If the regime is unknown.
    """
    if regime not in REGIMES:
        raise ValueError(f'regime must be one of {tuple(REGIMES)}, but got {regime!r}')
    if regime == 'lora':
        return FROZEN_WEIGHT * parameters + MIXED * adapters
    return (MIXED if regime == 'mixed' else PURE) * parameters


def where_it_fits(
    states: float, gathered: float, activations: dict[int, float], frozen: float, card: float = CARD
) -> str:
    """The smallest setting that a training fits, the largest batch first.

    Args:
        states: Weights, gradients and optimizer states.
        gathered: What FSDP gathers at a time: two blocks' weights.
        activations: Batch size per card -> activations.
        frozen: Autoencoder and prompt encoders; trainings from cached encodings have none.
        card: Memory of a card.
    """
    batches = sorted(activations, reverse=True)
    for cards, own in ((1, states), (CARDS, states / CARDS + gathered)):
        name = '1 card' if cards == 1 else f'{cards} cards, FSDP'
        for kept, remark in ((frozen, ''), (0, ', cached encodings')):
            for batch in batches:
                if own + activations[batch] + kept <= card:
                    return f'{name}, batch {batch}{"" if cards == 1 else " each"}{remark}'
    return f'more than {CARDS} cards'


def fits(model: dict[str, Any]) -> dict[str, str]:
    """Where each regime of a measured model fits, with gradient checkpointing."""
    frozen = model['vae_bytes'] + model['encoder_bytes']
    result = {}
    for regime in REGIMES:
        own = model['activations'][regime]
        states = state_bytes(regime, model['parameters'], model['adapters'])
        activations = {int(batch): cell['on'] for batch, cell in own.items()}
        gathered = 2 * FROZEN_WEIGHT * model['largest_block']
        result[regime] = where_it_fits(states, gathered, activations, frozen)
    return result


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f'| {" | ".join(header)} |', '|' + '---|' * len(header)]
    return '\n'.join([*lines, *(f'| {" | ".join(row)} |' for row in rows)]) + '\n'


def tiny_table(models: Sequence[dict[str, Any]]) -> str:
    """Tiny models: every number of memory as measured, and as estimated on the meta device."""
    columns = dict(
        off='kept for backward', on='kept, ckpt', autocast='kept, bf16 autocast', peak_off='peak', peak_on='peak, ckpt'
    )  # fmt: skip
    header = ['family', 'parameters', *(f'{name}, MB (estimate)' for name in columns.values())]
    header += ['step, ms', 'forward', 'backward', 'AdamW']
    rows = []
    for own in models:
        times = own['seconds']
        memory = [f'{own["measured"][key] / 1e6:.2f} ({own["estimated"][key] / 1e6:.2f})' for key in columns]
        seconds = [f'{1e3 * value:.1f}' for value in (sum(times.values()), *times.values())]
        rows.append([own['family'], str(own['parameters']), *memory, *seconds])
    return table(header, rows)


def parameters_table(models: Sequence[dict[str, Any]]) -> str:
    """Parameters against the published sizes, and the frozen parts."""
    header = [
        'model', 'family', 'parameters, M', 'stored tables, M', 'published, B', 'difference',
        'changed for GenMask, k', 'LoRA, M',
        'VAE, GB', 'its prompt encoders, GB', 'source of the config',
    ]  # fmt: skip
    rows = []
    for own in models:
        released, buffers = own['released_parameters'], own['released_buffers']
        rows.append(
            [
                own['name'],
                own['family'],
                f'{released / 1e6:.1f}',
                f'{buffers / 1e6:.1f}',
                f'{own["published"]:g}',
                f'{100 * ((released + buffers) / 1e9 / own["published"] - 1):+.1f} %',
                f'{(own["parameters"] - released) / 1e3:.1f}',
                f'{own["adapters"] / 1e6:.1f}',
                f'{own["vae_bytes"] / GB:.2f}',
                f'{own["encoder_bytes"] / GB:.2f} ({" + ".join(own["encoders"])})',
                own['source'],
            ]
        )
    return table(header, rows)


def memory_table(models: Sequence[dict[str, Any]]) -> str:
    """States and activations."""
    batches = sorted({int(batch) for own in models for batch in own['activations']['mixed']})
    header = ['model', *(f'states, {name}, GB' for name in REGIMES.values())]
    for batch in batches:
        header += [f'batch {batch}: activations, bf16 mixed, GB']
        header += [f'batch {batch}: {name}, ckpt, GB' for name in REGIMES.values()]
    rows = []
    for own in models:
        kept = own['activations']
        sizes = [state_bytes(name, own['parameters'], own['adapters']) for name in REGIMES]
        for batch in map(str, batches):
            sizes.append(kept['mixed'][batch]['off'])
            sizes += [kept[regime][batch]['on'] for regime in REGIMES]
        rows.append([own['name'], *(f'{size / GB:.1f}' for size in sizes)])
    return table(header, rows)


def fit_table(models: Sequence[dict[str, Any]]) -> str:
    """What fits where."""
    header = ['model', *(f'all weights, {REGIMES[regime]}' for regime in ('mixed', 'pure')), 'LoRA']
    return table(header, [[own['name'], *fits(own).values()] for own in models])


def report(results: dict[str, list[dict]], args: argparse.Namespace) -> str:
    """All tables as Markdown."""
    parts = []
    if tiny := results['tiny']:
        one = tiny[0]
        parts += [
            f'## Tiny models, measured\n\nbatch {one["batch"]}, latents {one["size"]} x {one["size"]} with an image '
            f'condition, {one["text_length"]} prompt tokens, float32, {args.threads} CPU thread(s), torch '
            f'{torch.__version__}, median of {args.iters} steps{", CPU time" if args.cpu_time else ""}\n',
            tiny_table(tiny),
        ]
    if full := results['full']:
        qwen = FROZEN_WEIGHT * frozen_parameters('qwen2.5-vl-7b') / 1e9
        parts += [
            f'## Released models, from the meta device\n\nimages {args.size} x {args.size} with an image condition, '
            f'{args.text_length} prompt tokens, fused attention; LoRA rank {args.lora_rank} on '
            'the attention projections. VAE in float32, prompt encoders in bfloat16, both frozen; with Qwen2.5-VL-7B '
            f"(the paper's) as prompt encoder: {qwen:.2f} GB in place of the model's own.\n",
            parameters_table(full),
            '### Memory\n\nStates: weights, gradients, AdamW. bf16 mixed: 16 bytes per parameter (float32 weights '
            'under autocast, whose bfloat16 copies count as activations); pure bf16: 8; LoRA: 2, and 16 per '
            'trained parameter. Activations with checkpointing (ckpt): the inputs of all blocks and the largest block, '
            'which is computed again.\n',
            memory_table(full),
            '### What fits 80 GB\n\nWith gradient checkpointing, VAE and own prompt encoders on every card unless '
            'cached; FSDP shards states over 8 cards.\n',
            fit_table(full),
        ]
    return '\n'.join(parts)


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    lacking = set(args.families) - TINY.keys()
    if lacking:
        raise ValueError(f'released_families.py has no tiny transformer for {sorted(lacking)}; add one')
    results: dict[str, list[dict]] = dict(tiny=[], full=[])
    if args.only != 'full':
        for family in args.families:
            print(f'{family}, tiny ...', file=sys.stderr, flush=True)
            results['tiny'].append(measure_tiny(family, args.iters, cpu_time=args.cpu_time))
    if args.only != 'tiny':
        for name in args.models or [n for n in FULL if FULL[n]['family'] in args.families]:
            print(f'{name} ...', file=sys.stderr, flush=True)
            results['full'].append(measure_full(name, args))
    text, folder = report(results, args), Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'families.md').write_text(text)
    (folder / 'families.json').write_text(json.dumps(results, indent=2) + '\n')
    print(f'{text}\nwritten: {folder}/families.md, families.json')


if __name__ == '__main__':
    launch.run_tool(main)
