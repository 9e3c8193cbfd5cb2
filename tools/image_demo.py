"""Predicts images or a video with a trained or released model: python tools/image_demo.py INPUTS MODEL [options].

Points of a trained Gen2Seg, an expression of a trained GenMask, automatic instances of released weights::

    python tools/image_demo.py street.jpg CONFIG.py --weights iter_3200.pth --points 320,240 80,200
    python tools/image_demo.py street.jpg CONFIG.py --weights iter_2800.pth --texts 'the red car'
    python tools/image_demo.py photos/ reachomk/gen2seg-sd --automatic --batch-size 8

Objects of a video, clicked on in its first frame and carried along; what was ended goes on where it is called again::

    python tools/image_demo.py street.mp4 CONFIG.py --weights iter_3200.pth --points 320,240

Two-stage reasoning (the config's ``description_writer`` refines the text first), and pictures from texts::

    python tools/image_demo.py street.jpg CONFIG.py --weights iter_8000.pth --texts 'what to stop at?' --describe
    python tools/image_demo.py CONFIG.py --weights iter_8000.pth --task generate --texts 'a red car' 'two dogs'
"""

import argparse
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == '__main__':
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while the imports run

from genseg_mm import launch

if TYPE_CHECKING:
    from genseg_mm.inferencers import GenSegInferencer

VIDEO_OPTIONS = ('query_frame', 'follow', 'max_frames')


def parse_args() -> argparse.Namespace:
    """Command line of MMDetection's image_demo.py, with point and box prompts."""
    parser = launch.ToolParser(description='Predict images')
    parser.add_argument(
        'inputs',
        nargs='?',
        help='image file, video, or folder of image files (with the folders below); none for --task generate',
    )
    parser.add_argument(
        'model', help='config file (with --weights) or name of a config, or folder or hub id of released weights'
    )
    parser.add_argument(
        '--weights', help='trained weights of the config (.pth, .safetensors; default: those that come with its name)'
    )
    parser.add_argument(
        '--points',
        nargs='+',
        metavar='X,Y',
        help='point prompts of every image, one mask each, in pixels; X,Y;X,Y,0 is one prompt of a positive and a '
        'negative point',
    )
    parser.add_argument(
        '--boxes', nargs='+', metavar='X0,Y0,X1,Y1', help='box prompts of every image, or one per point prompt'
    )
    parser.add_argument(
        '--texts', nargs='+', metavar='TEXT', help='referring expressions, or what to make pictures of (GenMask)'
    )
    parser.add_argument(
        '--describe', action='store_true', help="refine the texts with the config's description_writer first"
    )
    launch.add_speed_arguments(parser)
    _add_generation(parser)
    _add_video(parser)
    parser.add_argument(
        '--automatic', action='store_true', help='all instances of the colour map, without prompts (Gen2Seg)'
    )
    parser.add_argument('--device', help='such as cuda:0 or cpu (default: the best there is)')
    parser.add_argument('--batch-size', type=int, default=1, help='images that the network takes at once')
    parser.add_argument(
        '--image-size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='size that the network sees'
    )
    parser.add_argument(
        '--processing-size',
        type=int,
        metavar='PIXELS',
        help='longer side that images are brought to for the network; 0: their own size (default: as the model says, '
        'for released weights as published)',
    )
    parser.add_argument(
        '--tiles', action='store_true', default=None, help='show the network overlapping tiles, too, for small objects'
    )
    parser.add_argument(
        '--output',
        choices=['float', 'picture'],
        help='colour map of Gen2Seg with fractions, or cut to 8 bits and resized by Lanczos as published (default: as '
        'the model says)',
    )
    parser.add_argument(
        '--out',
        writes='file',
        metavar='FILE',
        help='also one file of all images: .json (COCO), .zip (COCO 1.0 for CVAT) or .xml (CVAT for images 1.1)',
    )
    parser.add_argument(
        '--resume', action='store_true', help='leave out images whose predictions an ended run has left in --out-dir'
    )
    parser.add_argument(
        '--out-dir', writes='folder', default='outputs', help='folder of vis/ and preds/ (default: %(default)s)'
    )
    parser.add_argument(
        '--force', action='store_true', help='replace FILE of --out, and predictions of other pictures in --out-dir'
    )
    parser.add_argument('--show', action='store_true', help='show the pictures in windows')
    parser.add_argument('--no-save-vis', action='store_true', help='write no pictures')
    parser.add_argument('--no-save-pred', action='store_true', help='write no masks and colour maps')
    parser.add_argument(
        '--on-error', choices=['raise', 'skip'], default='raise', help='what to do with images that cannot be read'
    )
    args = parser.parse_intermixed_args()
    if args.task == 'generate' and args.inputs is not None:
        parser.error(f'--task generate makes pictures of texts: expected no inputs, but got {args.inputs}')
    if args.task == 'segment' and args.inputs is None:
        parser.error('expected inputs and a model, but got one of them')
    return args


def _add_generation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--task',
        choices=['segment', 'generate'],
        default='segment',
        help='masks on images, or pictures of the texts (GenMask)',
    )
    group = parser.add_argument_group('pictures of texts', 'defaults: those of the config')
    group.add_argument('--num-steps', type=int, help='Euler steps')
    group.add_argument('--guidance-scale', type=float, help='of classifier-free guidance; 1 is none')
    group.add_argument('--negative-text', help='what to guide away from')
    group.add_argument('--seed', type=int, help='of the noise (default: 0)')
    group.add_argument('--num-images', type=int, help='pictures for each text (default: 1)')


def _add_video(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('videos')
    group.add_argument(
        '--query-frame', type=int, help='number of the frame that points and boxes are given on (default: 0)'
    )
    group.add_argument(
        '--follow',
        type=float,
        metavar='PART',
        help="part of the way, in [0, 1], that a prompt's colour moves to its mask's after every frame (default: 1)",
    )
    group.add_argument('--max-frames', type=int, help='longer videos are refused (default: 100000)')


def read_points(prompts: list[str]) -> tuple[list, list]:
    """Points (x, y) and labels of the prompts of the command line."""
    points = [[_numbers(one, '--points', 'X,Y or X,Y,LABEL', 2, 3) for one in p.split(';')] for p in prompts]
    labels = [[point[2] if len(point) == 3 else 1 for point in prompt] for prompt in points]
    return [[point[:2] for point in prompt] for prompt in points], labels


def _numbers(text: str, option: str, form: str, *counts: int) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(',')]
    except ValueError:
        numbers = []
    if len(numbers) not in counts:
        raise ValueError(f'{option}: expected {form}, in pixels, but got {text!r}')
    return numbers


def main() -> None:
    """Predicts."""
    args = parse_args()
    if args.task == 'generate':
        found = _generate(args)
    else:
        found = _segment(args)
    written = [
        str(Path(args.out_dir, name))
        for name, left_out in (('vis', args.no_save_vis), ('preds', args.no_save_pred))
        if not left_out
    ]
    written += [args.out] * (args.out is not None)
    where = ', '.join(written) or 'nowhere'
    print(f'{found}, written to: {where}')


def _segment(args: argparse.Namespace) -> str:
    for name in ('num_steps', 'guidance_scale', 'negative_text', 'seed', 'num_images'):
        if getattr(args, name) is not None:
            raise ValueError(f'--{name.replace("_", "-")} is for --task generate, but got --task segment')
    from genseg_mm.files.videos import is_video

    prompts = {}
    if args.points:
        prompts['points'], prompts['point_labels'] = read_points(args.points)
    if args.boxes:
        prompts['boxes'] = [_numbers(box, '--boxes', 'X0,Y0,X1,Y1', 4) for box in args.boxes]
    if args.texts:
        prompts['texts'] = args.texts

    options = dict(automatic=True) if args.automatic else {}
    if args.describe:
        options['describe'] = True
    if is_video(args.inputs):
        return _predict_video(args, **prompts, **options)
    for name in VIDEO_OPTIONS:
        if getattr(args, name) is not None:
            raise ValueError(f'--{name.replace("_", "-")} is for videos, but got {args.inputs}')
    if '://' not in args.inputs and not os.path.exists(args.inputs):  # before the models are imported
        raise FileNotFoundError(f'image {args.inputs} does not exist')
    from genseg_mm.inference.annotation_exports import check_export, is_export, predicted_image, write_annotations
    from genseg_mm.inference.images import list_sources

    if args.out is not None:
        check_export(args.out, args.force or (args.resume and is_export(args.out)))
    sources, _ = list_sources(args.inputs, args.out_dir)
    results = _inferencer(args).stream(
        args.inputs,
        resume=args.resume,
        force=args.force,
        batch_size=args.batch_size,
        image_size=args.image_size,
        out_dir=args.out_dir,
        return_vis=False,
        show=args.show,
        no_save_vis=args.no_save_vis,
        no_save_pred=args.no_save_pred,
        on_error=args.on_error,
        **prompts,
        **options,
    )
    exported, num_masks = [], []
    for source, (prediction, _) in zip(sources, results, strict=True):
        if prediction is None:
            continue
        num_masks.append(len(prediction['masks']))
        if args.out is not None:
            exported.append(predicted_image(source, args.inputs, prediction, args.texts or ()))
    if args.out is not None:
        write_annotations(args.out, exported)
    found = f'images: {len(num_masks)}, masks: {sum(num_masks)}'
    if not prompts and not args.automatic:
        found += ' (no prompt, so that there are colour maps alone: --points, --boxes or --automatic ask for masks)'
    return found


def _predict_video(args: argparse.Namespace, **options: Any) -> str:
    if args.show or args.no_save_pred or args.on_error != 'raise' or args.out is not None:
        raise ValueError('--show, --no-save-pred, --on-error and --out are for images, but got a video')
    options.update({name: getattr(args, name) for name in VIDEO_OPTIONS if getattr(args, name) is not None})
    summary = _inferencer(args).video(
        args.inputs,
        out_dir=args.out_dir,
        batch_size=args.batch_size,
        image_size=args.image_size,
        save_video=not args.no_save_vis,
        force=args.force,
        **options,
    )
    flicker = summary['flicker']
    told = [
        f'{what} {flicker[name]:.{digits}f}'
        for what, name, digits in (
            ('IoU of masks', 'mask_iou', 3), ('change of colours', 'color_change', 1), ('of pixels', 'image_change', 1)
        )
        if flicker[name] is not None
    ]  # fmt: skip
    from_frame = f'; from frame to frame: {", ".join(told)}' if told else ''
    return f'frames: {summary["num_frames"]}, masks: {summary["num_masks"]}{from_frame}'


def _generate(args: argparse.Namespace) -> str:
    for name in ('points', 'boxes', 'automatic', 'describe'):
        if getattr(args, name):
            raise ValueError(f'--{name} is for --task segment, but got --task generate')
    results = _inferencer(args).generate(
        args.texts,
        num_images=1 if args.num_images is None else args.num_images,
        image_size=args.image_size,
        seed=args.seed or 0,
        batch_size=args.batch_size,
        return_vis=False,
        out_dir=args.out_dir,
        show=args.show,
        no_save_vis=args.no_save_vis,
        no_save_pred=args.no_save_pred,
        num_steps=args.num_steps,
        guidance_scale=args.guidance_scale,
        negative_text=args.negative_text,
    )
    return f'pictures: {len(results["predictions"])}'


def _inferencer(args: argparse.Namespace) -> 'GenSegInferencer':
    from genseg_mm.inference.build_model import CONFIG_ENDINGS, is_config, near_models
    from genseg_mm.inferencers import GenSegInferencer

    size, speed = args.processing_size, launch.speed_options(args)
    is_file = Path(args.model).suffix in CONFIG_ENDINGS
    if args.weights is None and is_file:
        raise ValueError(f'{args.model} is a config: expected its trained --weights, but got none')
    if args.weights is not None or is_config(args.model):  # without weights: a name of the metafiles
        inferencer = GenSegInferencer(
            args.model, args.weights, device=args.device, processing_size=size, tiles=args.tiles, **speed
        )
        if args.output is not None:
            if not hasattr(inferencer.model, 'output'):
                raise ValueError(f'--output is for Gen2Seg, but {args.model} is a {type(inferencer.model).__name__}')
            inferencer.model.output = args.output
        return inferencer
    near = near_models(args.model)
    if near and '/' not in args.model and not Path(args.model).exists():
        raise FileNotFoundError(f'{args.model} is no folder, hub id or model of genseg_mm{near}')
    given = dict(processing_size=size, output=args.output, tiles=args.tiles)
    given = {key: value for key, value in given.items() if value is not None}
    return GenSegInferencer.from_pretrained(args.model, device=args.device, **speed, **given)


if __name__ == '__main__':
    launch.run_tool(main)
