"""Does a training fit, and if not, what to turn? From shapes alone: no weight is fetched, no card is needed.

    python tools/plan.py configs/genmask/refcoco_qwen-image.py --gpus 8 --memory 80
    python tools/plan.py --all --gpus 8 --memory 80                  # a table of every full-size config

Counted for the card that holds most: weights, gradients and optimizer states, DDP's buckets beyond them, what FSDP2
gathers, the frozen parts that the training runs (those of a validation beyond them), EMA, what a forward pass keeps;
for a machine the memory of its host, and the size of a checkpoint. Not counted: the frozen encoders' own passes (before
the others), gradients of activations, buffers of kernels, fragments: leave a tenth. Sizes of released models are those
of genseg_mm/hub_layouts.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mmengine.config import Config

from genseg_mm.config_file import read_config_file
from genseg_mm.files import write_text
from genseg_mm.launch import ToolParser, run_tool
from genseg_mm.launch.config import CfgOptions, override_config

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='configs of trainings')
    parser.add_argument('--all', action='store_true', help='every config that names released models')
    parser.add_argument('--gpus', type=int, default=1, help='cards in all (default: 1)')
    parser.add_argument('--gpus-per-node', type=int, default=8, help='cards of a machine (default: 8)')
    parser.add_argument('--memory', type=float, default=80, help='GB of a card (default: 80)')
    parser.add_argument('--json', writes='text', type=Path, metavar='FILE', help='also writes the numbers')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE', help='as of tools/train.py')
    args = parser.parse_args()
    if bool(args.configs) == args.all:
        parser.error(f'expected configs or --all, but got {"both" if args.all else "neither"}')
    if min(args.gpus, args.gpus_per_node, args.memory) <= 0:
        parser.error('--gpus, --gpus-per-node and --memory must be positive')
    return args


def plan_one(path: str, cfg: Config, args: argparse.Namespace, known: dict) -> Any:
    """The plan of a config, with the options of the command line."""
    from mmengine.registry import init_default_scope

    from genseg_mm.planning.training_plan import plan_training

    if args.cfg_options:
        override_config(cfg, args.cfg_options)
    for key in ('model', 'train_dataloader', 'optim_wrapper'):
        if cfg.get(key) is None:
            raise ValueError(f'{path} has no {key}: expected the config of a training')
    init_default_scope(cfg.get('default_scope', 'genseg_mm'))
    gpus = args.gpus
    if args.all and (total := cfg.get('global_batch_size')):  # as many of them as share an update
        gpus = max(own for own in range(1, gpus + 1) if total % (own * cfg.train_dataloader.batch_size) == 0)
    return plan_training(cfg, gpus, args.gpus_per_node, known)


def trained_configs() -> dict[str, Config]:
    """Full-size configs that train released models, by their paths."""
    from rehearsal.configs import full_size_configs

    from genseg_mm.hub_layouts import sources_of

    found = {}
    for path in full_size_configs():
        cfg = read_config_file(str(path))
        if cfg.get('train_dataloader') and sources_of(cfg.model.to_dict()):
            found[str(path.relative_to(ROOT))] = cfg
    return found


def main() -> None:
    args = parse_args()
    from genseg_mm.planning.training_plan import numbers, page, table

    configs = trained_configs() if args.all else {path: read_config_file(path) for path in args.configs}
    plans: dict[str, Any] = {}
    known: dict[str, Any] = {}
    for path, cfg in configs.items():
        plans[path] = plan_one(path, cfg, args, known)
        if args.all:
            print(f'{path} ...', file=sys.stderr, flush=True)
        else:
            print(page(path, plans[path], args.memory * 1e9))
    if args.all:
        print(table(plans, args.memory * 1e9))
    if args.json:
        write_text(args.json, json.dumps({path: numbers(plan) for path, plan in plans.items()}, indent=1) + '\n')
    if any(sum(plan.per_card().values()) > args.memory * 1e9 for plan in plans.values()):
        sys.exit(1)


if __name__ == '__main__':
    run_tool(main)
