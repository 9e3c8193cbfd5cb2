"""Memory and step time of every DiT family, measured on tiny models; what released ones need says tools/plan.py.

    python tools/analysis_tools/measure_families.py

Of a tiny random model per family a training step is timed; what its forward pass keeps for the backward pass and the
peak of both are measured, and compared with what the meta device says for the same model, from which tools/plan.py
reckons. Not in the estimate: gradients of activations, buffers of the kernels, fragmentation. The real peak is up to a
tenth above it.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genseg_mm import launch
from genseg_mm.leaderboard.markdown import table_lines

_ROPE = dict(attention_head_dim=16, num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=(4, 6, 6))
_QWEN_TINY = dict(patch_size=2, in_channels=16, out_channels=4, num_layers=2, **_ROPE)
_FLUX_TINY = dict(in_channels=16, num_layers=1, num_single_layers=1, pooled_projection_dim=24, **_ROPE)
# family -> transformer for latents of 4 channels (Sana: 20, FLUX.2: 16) and text states of width 32
TINY = dict(
    wan=dict(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, text_dim=32, freq_dim=32,
        ffn_dim=64, num_layers=2, rope_max_seq_len=64,
    ),
    qwen_image=_QWEN_TINY,
    qwen_image_edit=dict(_QWEN_TINY, zero_cond_t=True),
    flux=_FLUX_TINY,
    flux_kontext=dict(_FLUX_TINY, guidance_embeds=True),
    flux2=dict(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    ),
    sd3=dict(
        sample_size=16, patch_size=2, in_channels=8, out_channels=4, num_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=24,
        pos_embed_max_size=16, qk_norm='rms_norm',
    ),
    pixart=dict(
        num_attention_heads=2, attention_head_dim=16, in_channels=8, out_channels=4, num_layers=2,
        cross_attention_dim=32, sample_size=8, patch_size=2, caption_channels=32,
    ),
    sana=dict(
        in_channels=40, out_channels=20, num_layers=2, num_attention_heads=2, attention_head_dim=16,
        num_cross_attention_heads=2, cross_attention_head_dim=16, cross_attention_dim=32, caption_channels=32,
        sample_size=4, patch_size=2, interpolation_scale=1,
    ),
    z_image=dict(
        in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=32,
        axes_dims=[4, 6, 6], axes_lens=[256, 32, 32],
    ),
)  # fmt: skip


def parse_args() -> argparse.Namespace:
    parser = launch.ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--families', nargs='+', choices=sorted(TINY), default=sorted(TINY))
    parser.add_argument('--iters', type=int, default=10, help='timed steps of a tiny model')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads of torch')
    parser.add_argument(
        '--cpu-time', action='store_true', help="CPU seconds instead of the clock's, for a busy machine"
    )
    parser.add_argument('--out', writes='folder', default='work_dirs/measure_families', help='folder')
    args = parser.parse_args()
    if args.iters < 1:
        parser.error(f'--iters must be at least 1, but got {args.iters}')
    return args


if __name__ == '__main__':
    launch.run_tool(parse_args)  # help and mistakes, before what is imported below takes seconds

import torch
from costs import PhaseMeter, clock, most_held
from torch import Tensor, nn

from genseg_mm.models import DiTBackbone
from genseg_mm.models.prompt_encoders import PromptEmbeddings
from genseg_mm.planning.kept_bytes import SavedBytes, ShapesOnly, largest_block

PHASES = ('forward', 'backward', 'optimizer')


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


def num_parameters(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())


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
    return '\n'.join(table_lines(header, rows))


def report(models: Sequence[dict[str, Any]], args: argparse.Namespace) -> str:
    """The table with what it was measured on, as Markdown."""
    one = models[0]
    setting = f'batch {one["batch"]}, latents {one["size"]} x {one["size"]} with an image condition, '
    setting += f'{one["text_length"]} prompt tokens, float32, {args.threads} CPU thread(s), torch {torch.__version__}, '
    setting += f'median of {args.iters} steps{", CPU time" if args.cpu_time else ""}'
    return f'{setting}\n\n{tiny_table(models)}\n'


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    models = []
    for family in args.families:
        print(f'{family} ...', file=sys.stderr, flush=True)
        models.append(measure_tiny(family, args.iters, cpu_time=args.cpu_time))
    text, folder = report(models, args), Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'families.md').write_text(text)
    (folder / 'families.json').write_text(json.dumps(models, indent=2) + '\n')
    print(f'{text}\nwritten: {folder}/families.md, families.json')


if __name__ == '__main__':
    launch.run_tool(main)
