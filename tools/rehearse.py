"""Rehearses full-size configs on a CPU: everything as it will be, but weights, pictures and length of the training.

    python tools/rehearse.py configs/genmask/refcoco_qwen-image.py                # full width, few layers
    python tools/rehearse.py configs/genmask/refcoco.py --width tiny              # small widths too: seconds
    python tools/rehearse.py --all --width tiny                                   # every full-size config

The released folders that a config names are written in the hub's own layout (public config.json, names of the files of
weights, shards, tokenizers), with random weights and few layers; tiny data in the layouts that it reads; and the real
tools train, save, resume, validate, test, predict and export. OUT/rehearsal.{json,md} say of each stage how long it
took, how much memory its processes held, and what was fresh, missing or unused. Exit code 1 if a config fails.
"""

import argparse
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == '__main__':
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while the imports run

from genseg_mm import launch

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    parser = launch.ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='full-size configs')
    parser.add_argument('--all', action='store_true', help='every full-size config of configs/')
    parser.add_argument('--width', choices=['full', 'tiny'], default='full', help='widths of the models')
    parser.add_argument('--pictures', choices=['full', 'small'], default='small', help='sizes (default: %(default)s)')
    parser.add_argument('--layers', type=int, default=2, help='layers of each kind (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, help='training batch (default: 1 at full width, else 2)')
    parser.add_argument('--processes', type=int, default=1, help='that train and test together')
    ends = ['train', 'train and validate', 'resume and validate', 'test']
    parser.add_argument('--until', choices=ends, help='the last stage (default: all of them)')
    parser.add_argument('--limit', type=int, default=1800, help='seconds of a stage (default: %(default)s)')
    parser.add_argument(
        '--out', writes='folder', type=Path, default=Path('work_dirs/rehearsal'), help='folder (default: %(default)s)'
    )
    args = parser.parse_args()
    if bool(args.configs) == args.all:
        parser.error(f'expected configs or --all, but got {"both" if args.all else "neither"}')
    return args


def set_environment(out: Path) -> None:
    """What the libraries read when they are imported: the hub is the folder of the rehearsal, and out of reach."""
    os.environ.update(
        HF_HUB_CACHE=str(out / 'hub'), HF_HUB_OFFLINE='1', GENSEG_DATA=str(out / 'data'), OMP_NUM_THREADS='1'
    )  # fmt: skip


def import_all() -> None:
    """Once, for all stages."""
    import diffusers  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import genseg_mm.benchmarking
    import genseg_mm.inferencers
    import genseg_mm.models  # noqa: F401

    torch.set_num_threads(1)


def import_classes(named: dict[str, set[str]]) -> None:
    """Those of the parts, which the libraries import when they are first asked for."""
    import diffusers
    import transformers

    from genseg_mm.hub_layouts import layout

    libraries = dict(diffusers=diffusers, transformers=transformers)
    for part in (part for repository in named for part in layout(repository).values()):
        if part.kind is not None:
            library, _, name = part.kind.partition('.')
            getattr(libraries[library], name)
        if part.tokenizer is not None:
            transformers.AutoTokenizer, transformers.Qwen2VLImageProcessorPil  # noqa: B018


def rehearse(config: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    from rehearsal import configs, report, stages

    from genseg_mm.config_file import read_config_file

    cfg = read_config_file(config)
    out = args.out / args.width / config.parent.name / config.stem
    out.mkdir(parents=True, exist_ok=True)
    row = dict(config=os.path.relpath(config, configs.ROOT), width=args.width, layers=args.layers, error='')
    row.update(pictures=args.pictures)
    row.update(repositories={}, changes={}, stages=[], findings=[])
    done: list[stages.Outcome] = []
    try:
        named = configs.repositories(cfg)
        row['repositories'] = {key: sorted(value) for key, value in named.items()}
        import_classes(named)
        done.append(stages.in_fork(lambda: _write_folders(named, args), out / 'folders.log'))
        if not done[0].error:
            for number, stage in enumerate(_stages(cfg, config, out, args, row), 1):
                _clean(out, stage)
                done.append(stages.run(stage, out / f'{number}_{stage.name.replace(" ", "_")}.log', args.limit))
                print(f'  {stage.name}: {done[-1].seconds:.0f} s {done[-1].error}', flush=True)
                if done[-1].error or stage.name == args.until:
                    break
        failed = [own for own in done if own.error]
        row['error'] = f'{failed[0].name}: {failed[0].error}' if failed else ''
    except (ValueError, OSError) as error:
        row['error'] = ' '.join(str(error).split())
    fields = ('name', 'command', 'seconds', 'peak_bytes', 'error')
    row['stages'] = [{key: getattr(own, key) for key in fields} for own in done]
    row['findings'] = report.findings(own.output for own in done)
    return row


def _write_folders(named: dict[str, set[str]], args: argparse.Namespace) -> None:
    from rehearsal.data import make_data

    from genseg_mm.hub_layouts.folders import write_repository

    make_data(args.out / 'data')
    for repository, subfolders in named.items():
        # A part that names the repository alone may take any of it.
        wanted = None if '' in subfolders else subfolders
        write_repository(repository, args.out / 'hub', args.layers, args.width, wanted)


def _stages(cfg: 'Config', config: Path, out: Path, args: argparse.Namespace, row: dict) -> Any:
    from rehearsal import configs, stages

    if cfg.get('suite'):
        return stages.stages_of_suite(config, out, args.pictures)
    if not cfg.get('train_cfg'):
        return stages.stages_of_control(config, out)
    batch_size = args.batch_size or (1 if args.width == 'full' else 2)
    row['changes'] = configs.changes_of(cfg, args.width, batch_size, args.processes, args.layers, args.pictures)
    row['changes'].update(configs.weight_files(cfg, out))
    own = configs.write_config(config, row['changes'], out)
    picture = args.out / 'data' / 'coco' / 'train2014'
    photo = next(iter(sorted(picture.glob('*.jpg'))))
    return stages.stages_of(cfg, own, out, photo, args.processes, args.until == 'train and validate')


def _clean(out: Path, stage: Any) -> None:
    """Nothing of an earlier rehearsal may stand in for what a stage has to write."""
    import shutil

    if stage.name in ('train', 'train and validate'):
        for name in ('work', 'test', 'demo', 'released', 'demo_released'):
            shutil.rmtree(out / name, ignore_errors=True)


def main() -> None:
    args = parse_args()
    args.out = args.out.resolve()
    set_environment(args.out)
    from rehearsal import configs, report

    from genseg_mm.config_file import find_config

    chosen = configs.full_size_configs() if args.all else [Path(find_config(name)).resolve() for name in args.configs]
    import_all()
    rows = []
    for number, config in enumerate(chosen, 1):
        print(f'{number}/{len(chosen)} {os.path.relpath(config, configs.ROOT)}', flush=True)
        rows.append(rehearse(config, args))
        print(f'  {rows[-1]["error"] or "passed"}', flush=True)
        (args.out / 'rehearsal.json').write_text(json.dumps(rows, indent=2) + '\n')
        (args.out / 'rehearsal.md').write_text(report.table(rows))
    failed = [row['config'] for row in rows if row['error']]
    print(f'{len(rows) - len(failed)} of {len(rows)} passed; written: {args.out}/rehearsal.json, rehearsal.md')
    if failed:
        raise SystemExit(1)


if __name__ == '__main__':
    launch.run_tool(main)
