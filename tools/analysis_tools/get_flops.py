"""What the model of a config costs: parameters, FLOPs of one prediction, time and peak memory, each by part.

    python tools/analysis_tools/get_flops.py CONFIG [--shape 480 640] [--latency] [--json cost.json]
    python tools/analysis_tools/get_flops.py configs/genmask/refcoco.py --meta

FLOPs are floating point operations: a multiplication and an addition are two. mmdet and mmseg count them as one and
call that FLOPs; it is shown here as MACs. One prediction is one picture with one expression (GenMask) or with
--num-prompts points (Gen2Seg), through everything that test_step runs. Torch counts what it really runs, on whatever
device: products, convolutions, attention. Norms, activations, softmax, resizing, and what points and thresholds do
with a map are not counted; --latency times them all.

With --meta no weights are needed: the parts are built as shapes alone, from the config, the config.json of a folder
or of the hub's cache, or the table of released models. A prompt then has the config's max_length.
"""

import argparse
import json
import warnings
from typing import Any

import torch

from genseg_mm.benchmarking.suite import read_dataset_config
from genseg_mm.config_file import find_config
from genseg_mm.files import write_text
from genseg_mm.launch import ToolParser, run_tool
from genseg_mm.launch.config import CfgOptions

AMP = dict(bfloat16=torch.bfloat16, float16=torch.float16)


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config with a model')
    parser.add_argument(
        '--shape', type=int, nargs='+', metavar='PIXELS',
        help="height and width of the picture, or one number for both (default: the test pipeline's Resize)",
    )  # fmt: skip
    parser.add_argument('--num-prompts', type=int, default=8, help='points of a picture (Gen2Seg; default: 8)')
    parser.add_argument('--meta', action='store_true', help='without weights: shapes alone')
    parser.add_argument('--latency', action='store_true', help='also time and peak memory')
    parser.add_argument('--repeats', type=int, default=20, help='timed predictions (default: 20)')
    parser.add_argument('--warmup', type=int, default=3, help='predictions before them (default: 3)')
    parser.add_argument('--device', default='cpu', help='such as cuda:0 (default: cpu)')
    parser.add_argument('--amp', choices=AMP, help='autocast; frozen parts keep their precision')
    parser.add_argument('--threads', type=int, help="CPU threads of torch (default: torch's)")
    parser.add_argument('--json', writes='text', metavar='OUT', help='write all numbers to this file')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE', help='override settings')
    args = parser.parse_args()
    if args.shape is not None and (len(args.shape) > 2 or min(args.shape) < 1):
        parser.error(f'--shape takes height and width, but got {args.shape}')
    if args.num_prompts < 0 or args.warmup < 0 or args.repeats < 1:
        parser.error('--num-prompts and --warmup must be at least 0, --repeats at least 1')
    if args.meta and (args.latency or args.amp):
        parser.error('--meta has no weights to run: expected it without --latency and --amp')
    find_config(args.config)
    return args


if __name__ == '__main__':
    run_tool(parse_args)  # help and mistakes, before what is imported below takes seconds

from costs import NOT_COUNTED, count, input_size, latency, made_up_batch, parameters, peak_memory, prediction, quartiles
from models_without_weights import build_on_meta, check_weights, count_on_meta

from genseg_mm.inference.build_model import build_model


def measure(cfg: Any, args: argparse.Namespace) -> dict[str, Any]:
    """All numbers of a config, plain data."""
    size = (args.shape * 2)[:2] if args.shape else input_size(cfg)
    result: dict[str, Any] = dict(config=args.config, shape=list(size), meta=args.meta)
    if args.meta:
        parts = build_on_meta(cfg.model)
        flops, left_out = count_on_meta(parts, cfg.model, tuple(size))
        return dict(result, parameters=parameters(parts), flops=flops, left_out=left_out)
    check_weights(cfg.model)
    with warnings.catch_warnings():
        # Costs do not depend on the weights.
        warnings.filterwarnings('ignore', message='no weights were given')
        model = build_model(cfg, None, args.device)
    device = next(model.parameters(), torch.zeros(0)).device
    run = prediction(model, made_up_batch(tuple(size), num_prompts=args.num_prompts))
    result.update(parameters=parameters(model), flops=count(model, run), left_out=[])
    if args.latency:
        amp = AMP.get(args.amp)
        rounds = latency(model, run, device, args.repeats, args.warmup, amp)
        held = sum(one.numel() * one.element_size() for one in model.parameters())
        result['latency'] = dict(
            seconds=quartiles(rounds), peak_bytes=peak_memory(run, device), weight_bytes=held,
            device=_device_name(device), amp=args.amp, threads=torch.get_num_threads(),
            dtypes=sorted({str(one.dtype).removeprefix('torch.') for one in model.parameters()}),
        )  # fmt: skip
    return result


def _device_name(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return str(device)


def report(result: dict[str, Any], args: argparse.Namespace) -> str:
    """The numbers as Markdown tables."""
    height, width = result['shape']
    lines = [f'{result["config"]}, one picture of {height} x {width}', '']
    lines += ['| part | network | parameters | trainable | frozen |', '|---|---|---:|---:|---:|']
    rows = result['parameters']
    sums = {key: sum(row[key] for row in rows) for key in ('total', 'trainable', 'frozen')}
    for row in [*rows, dict(part='all', type='', **sums)]:
        cells = (f'{row[key]:,}' for key in ('total', 'trainable', 'frozen'))
        lines.append(f'| {row["part"]} | {row["type"]} | {" | ".join(cells)} |')
    flops, timed = result['flops'], result.get('latency')
    lines += ['', *_phase_table(flops, timed['seconds'] if timed else None), '']
    lines.append(f'FLOPs = 2 MACs. Not counted: {"; ".join([NOT_COUNTED, *result["left_out"]])}.')
    if result['meta']:
        lines.append('Without weights (--meta): prompts have the max_length of the config.')
    if timed:
        lines.append(
            f'Median and quartiles of {args.repeats} predictions after {args.warmup}; {timed["device"]}, '
            f'{", ".join(timed["dtypes"])}{", autocast " + timed["amp"] if timed["amp"] else ""}, '
            f'{timed["threads"]} CPU thread(s), torch {torch.__version__}, not compiled. Peak memory '
            f'{timed["peak_bytes"] / 2**20:.1f} MiB on top of the weights ({timed["weight_bytes"] / 2**20:.1f} MiB).'
        )
    return '\n'.join(lines)


def _phase_table(flops: dict, seconds: dict | None) -> list[str]:
    header = ['phase', 'FLOPs', 'MACs', 'share']
    if seconds:
        header += ['ms', 'quartiles', 'share of the time']
    lines = [f'| {" | ".join(header)} |', '|---|' + '---:|' * (len(header) - 1)]
    total = sum(flops.values())
    names = [*dict.fromkeys([*flops, *(seconds or {})])]
    for name in [own for own in names if own != 'total'] + ['all']:
        own = total if name == 'all' else flops.get(name, 0)
        share = f'{own / total:.1%}' if total else '-'
        cells = [name, amount(own), amount(own / 2), share]
        if seconds:
            low, middle, high = seconds.get('total' if name == 'all' else name, (0, 0, 0))
            cells += [
                f'{1e3 * middle:.2f}', f'{1e3 * low:.2f} - {1e3 * high:.2f}',
                f'{middle / seconds["total"][1]:.1%}',
            ]  # fmt: skip
        lines.append(f'| {" | ".join(cells)} |')
    return lines


def amount(number: float) -> str:
    """A number with three digits or more and a unit, such as 1.32 T."""
    for unit, size in (('T', 1e12), ('G', 1e9), ('M', 1e6), ('k', 1e3)):
        if number >= size:
            return f'{number / size:.4g} {unit}'
    return f'{number:.0f}'


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    cfg = read_dataset_config(args.config, args.cfg_options)
    if not isinstance(cfg.get('model'), dict):
        raise ValueError(f'{args.config} has no model, but only {", ".join(sorted(cfg.keys()))}')
    result = measure(cfg, args)
    print(report(result, args))
    if args.json:
        write_text(args.json, json.dumps(result, indent=1) + '\n')
        print(f'written: {args.json}')


if __name__ == '__main__':
    run_tool(main)
