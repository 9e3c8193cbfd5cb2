"""A page to click on, for one or several models: python tools/app.py [MODEL ...] [options].

python tools/app.py                                              # the models that come with the package
python tools/app.py gen2seg_unet_objects_long_tiny reachomk/gen2seg-sd
python tools/app.py mine=CONFIG.py:iter_3200.pth --port 8000 --open
"""

import argparse
import os
import signal

if __name__ == '__main__':
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while the imports run

from genseg_mm import launch


def parse_args() -> argparse.Namespace:
    """Models, and where the page is."""
    parser = launch.ToolParser(description='A web page for clicks, words and pictures of words')
    parser.add_argument(
        'models',
        nargs='*',
        metavar='MODEL',
        help='name of a model that comes with weights, [NAME=]CONFIG:CHECKPOINT, or the folder or hub id '
        'of a saved model or of released gen2seg weights; several can be compared (default: all that come with the '
        'package)',
    )
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen at; 0.0.0.0 lets everybody use the page who can reach this machine (default: '
        '%(default)s, this machine alone)',
    )
    parser.add_argument('--port', type=int, default=7860, help='of the page (default: %(default)s)')
    parser.add_argument('--device', help='such as cuda:0 or cpu (default: the best there is)')
    parser.add_argument('--open', action='store_true', help='open the page in a browser')
    return parser.parse_args()


def main() -> None:
    """Serves the page until Ctrl-C."""
    args = parse_args()
    from genseg_mm.app.serve import serve, wait
    from genseg_mm.app.served_models import served_models

    models = served_models(args.models, args.device)
    page, address = serve(models, args.host, args.port, args.open)
    print(f'genseg is at {address} with {", ".join(models)}; Ctrl-C ends it', flush=True)
    wait(page)


if __name__ == '__main__':
    launch.run_tool(main)
