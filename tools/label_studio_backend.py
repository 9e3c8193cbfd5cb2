"""A machine-learning back end of Label Studio: python tools/label_studio_backend.py MODEL --data-root FOLDER.

::

    python tools/label_studio_backend.py gen2seg_unet_objects_long_tiny --data-root photos/
    python tools/label_studio_backend.py genmask_sana_shapes_long_tiny --data-root photos/ --port 9091

Label Studio asks it where Settings, Model say http://localhost:9090; docs/recipes.md has a labelling interface.
"""

import argparse
import os
import signal

if __name__ == '__main__':
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while the imports run

from genseg_mm import launch


def parse_args() -> argparse.Namespace:
    """Model, pictures, and where to listen."""
    parser = launch.ToolParser(description='A machine-learning back end of Label Studio')
    parser.add_argument(
        'model', help='name of a model that comes with weights, config (with --weights), or released folder or hub id'
    )
    parser.add_argument('--weights', help='trained weights of a config')
    parser.add_argument(
        '--data-root', required=True, help="folder of the pictures: Label Studio's document root of local files"
    )
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen at; 0.0.0.0 answers everybody who can reach this machine (default: %(default)s)',
    )
    parser.add_argument('--port', type=int, default=9090, help='of the back end (default: %(default)s)')
    parser.add_argument('--device', help='such as cuda:0 or cpu (default: the best there is)')
    return parser.parse_args()


def main() -> None:
    """Serves until it is ended."""
    args = parse_args()
    from genseg_mm.inference.build_model import is_config, read_config

    of_config = args.weights is not None or is_config(args.model)
    if of_config:
        read_config(args.model)  # a name that is none is said before the models are imported
    from genseg_mm.inferencers import GenSegInferencer
    from genseg_mm.label_studio import LabelStudioBackend, make_server

    if of_config:
        inferencer = GenSegInferencer(args.model, args.weights, device=args.device, show_progress=False)
    else:
        inferencer = GenSegInferencer.from_pretrained(args.model, device=args.device)
    backend = LabelStudioBackend(inferencer, args.data_root, os.path.basename(os.path.normpath(args.model)))
    server = make_server(backend, args.host, args.port)
    print(f'{args.model} answers Label Studio at http://{args.host}:{server.server_port}', flush=True)
    try:
        server.serve_forever()
    finally:
        server.server_close()


if __name__ == '__main__':
    launch.run_tool(main)
