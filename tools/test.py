"""Tests a model: python tools/test.py CONFIG [CHECKPOINT] [options]."""

import argparse
import os
import signal

if __name__ == '__main__':
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while the imports run

from genseg_mm import launch


def parse_args() -> argparse.Namespace:
    """Command line of MMDetection's test.py."""
    parser = launch.ToolParser(description='Test a model')
    parser.add_argument('config', help='config file, or name of one that comes with the package')
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint file (default: the trained weights that come with the config)'
    )
    launch.add_common_arguments(parser)
    launch.add_speed_arguments(parser)
    parser.add_argument('--out', writes=('.pkl', '.pickle'), help='write all predictions to this .pkl file')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', writes='folder', help='write pictures of all predictions to this folder')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that a window stays (0: until a key)')
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation: tta_model, tta_pipeline of the config'
    )
    return parser.parse_args()


def weights_of(config: str) -> str:
    """Trained weights that come with a config, which are said; ValueError if there are none."""
    from genseg_mm.config_file import find_config
    from genseg_mm.inference.build_model import shipped_weights, with_weights

    weights = shipped_weights(find_config(config))
    if weights is None:
        raise ValueError(
            f'{config}: expected a checkpoint, since no trained weights come with this config, but got none (there are '
            f'weights of {", ".join(with_weights())})'
        )
    print(f'weights: {weights}', flush=True)
    return weights


def main() -> None:
    """Tests."""
    args = parse_args()
    cfg = launch.load_config(args, 'test')
    launch.set_speed(cfg, args)
    launch.set_checkpoint(cfg, args.checkpoint or weights_of(args.config))
    if args.show or args.show_dir:
        launch.enable_pictures(cfg, args.show, args.show_dir, args.wait_time)
    if args.tta:
        launch.enable_tta(cfg)
    if args.out:
        launch.dump_predictions(cfg, args.out)
    launch.build_runner(cfg).test()


if __name__ == '__main__':
    launch.run_tool(main)
