"""A trained model as a file that runs without this package: ONNX, a torch.export program, or a page for a browser.

    python tools/export.py gen2seg_unet_objects_long_tiny --format onnx --out unet.onnx
    python tools/export.py gen2seg_unet_objects_long_tiny --format torch --out unet.pt2
    python tools/export.py genmask_sana_objects_long_tiny --text 'the red car' --out red_car.onnx
    python tools/export.py genmask_sana_objects_long_tiny --prompt-input --out genmask.onnx
    python tools/export.py gen2seg_unet_objects_long_tiny --format web --out page    # python -m http.server -d page

A colorer becomes a graph from a picture to its colour map, a GenMask one from a picture to the logits of the mask that
one sentence means, or with --prompt-input that of an embedded prompt. Pictures are float32 RGB in [0, 255], (N, 3, H,
W); how to resize them, what comes out, and by which rule a click becomes a mask stands in the file, as JSON under
'genseg_mm' of ONNX's metadata_props, or as genseg_mm.json in the .pt2. Number and size of the pictures are free where
the model allows it. The file is run and compared with the model, at other sizes, too, before it gets its name.

--format web writes a folder with a page on which a click on a picture becomes a mask, in the browser: index.html, the
colorer, and onnxruntime-web, which the npm client fetches once (or --runtime FOLDER has).
"""

import argparse
import warnings
from pathlib import Path

from genseg_mm import launch
from genseg_mm.files import check_new_file

SUFFIXES = dict(onnx='.onnx', torch='.pt2')


def parse_args() -> argparse.Namespace:
    parser = launch.ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', help='name of a model that comes with the package, config, or saved folder')
    parser.add_argument('--weights', help="trained weights (default: those of the name); 'random' for a trial")
    parser.add_argument('--format', choices=[*SUFFIXES, 'web'], default='onnx', help='default: onnx')
    parser.add_argument(
        '--out', writes='either', type=Path, required=True, help='file to write (.onnx, .pt2), or folder (web)'
    )
    parser.add_argument('--text', help='of a GenMask: the sentence, which becomes a part of the file')
    parser.add_argument('--prompt-input', action='store_true', help='of a GenMask: embedded prompts are an input')
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='of all pictures, in pixels (default: free)'
    )
    parser.add_argument(
        '--tolerance', type=float, default=1e-3, help="largest difference, as a share of the output's range (1e-3)"
    )
    parser.add_argument('--time', action='store_true', help='also time the file against the model, one thread each')
    parser.add_argument('--runtime', type=Path, metavar='FOLDER', help="of --format web: onnxruntime-web's dist/")
    parser.add_argument('--force', action='store_true', help='replace OUT')
    return parser.parse_args()


def check_out(args: argparse.Namespace) -> None:
    """Refuses a file that cannot be written, before anything is built."""
    if args.format == 'web':
        from genseg_mm.exporting.web import check_page_folder

        check_page_folder(args.out, args.force)
        return
    suffix = SUFFIXES[args.format]
    if args.out.suffix != suffix:
        raise ValueError(f'OUT of --format {args.format} must end in {suffix}, but got {args.out}')
    check_new_file(args.out, '--out', args.force)


def main() -> None:
    args = parse_args()
    check_out(args)
    from genseg_mm.exporting.files import need_onnx, time_against_torch, write_file
    from genseg_mm.exporting.graphs import graph_of
    from genseg_mm.exporting.web import write_page
    from genseg_mm.inferencers import GenSegInferencer

    if args.format != 'torch':
        need_onnx()
    warnings.filterwarnings('ignore', category=FutureWarning)
    inferencer = GenSegInferencer(args.model, args.weights, device='cpu')
    size = tuple(args.size) if args.size else None
    graph = graph_of(inferencer, args.text, args.prompt_input, size)
    out = args.out
    if args.format == 'web':
        written, out = write_page(graph, args.out, size, args.tolerance, args.runtime), args.out / 'model.onnx'
    else:
        written = write_file(graph, args.out, args.format, size, args.tolerance)
    made, check = written.made, written.check
    for line in written.refused:
        print(f'not {line}')
    print(f'{out}: {out.stat().st_size / 2**20:.1f} MiB, free: {", ".join(made.free) or "nothing"}')
    for name, shape in made.shapes.items():
        print(f'  {name} ({", ".join(map(str, shape))})')
    trials = ', '.join('x'.join(map(str, own)) for own in check.trials)
    print(f'largest difference from the model {check.difference:.3g} ({check.share:.1e} of the range), at {trials}')
    if args.time:
        file, model = time_against_torch(made, out, 'torch' if args.format == 'torch' else 'onnx')
        print(f'one picture, one thread: {file * 1e3:.1f} ms, the model {model * 1e3:.1f} ms, ratio {model / file:.2f}')
    if args.format == 'web':
        print(f'python -m http.server -d {args.out}   # then open http://localhost:8000')


if __name__ == '__main__':
    launch.run_tool(main)
