"""Trains a model: python tools/train.py CONFIG [options]."""

import argparse
import os
import signal

if __name__ == '__main__':
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while the imports run

from genseg_mm import launch


def parse_args() -> argparse.Namespace:
    """Command line of MMDetection's train.py."""
    parser = launch.ToolParser(description='Train a model')
    parser.add_argument('config', help='config file, or name of one that comes with the package')
    launch.add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='continue from this checkpoint; without a name, from the newest whole one in the work '
        'dir (or start anew if there is none)',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='mixed precision: float16 on a GPU, bfloat16 on a CPU (unless the config sets it)',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate from auto_scale_lr.base_batch_size to the total batch size',
    )
    return parser.parse_args()


def main() -> None:
    """Trains."""
    args = parse_args()
    cfg = launch.load_config(args, 'train')
    if args.amp:
        launch.enable_amp(cfg)
    if args.auto_scale_lr:
        launch.enable_lr_scaling(cfg)
    launch.check_device(cfg)
    launch.set_resume(cfg, args.resume)
    launch.build_runner(cfg, restarts=True).train()


if __name__ == '__main__':
    launch.run_tool(main)
