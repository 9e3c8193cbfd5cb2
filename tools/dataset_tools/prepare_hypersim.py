"""Counts the instances of every frame of Hypersim and writes the index that HypersimDataset reads.

    python tools/dataset_tools/prepare_hypersim.py data/hypersim --out data/hypersim/index.csv --workers 8

The index holds the counts of all frames. What a dataset leaves out by default is decided here
(--min-instances, --min-scene-instances; its first line tells them) and can be changed in the dataset. Each finished
scene is noted in OUT.part, so that an interrupted run goes on where it stopped.

--plain-maps FOLDER also writes all ids uncompressed, 1.6 MB a frame (120 GB for all of Hypersim), which are read in a
sixth of the time: HypersimDataset(plain_maps=FOLDER).

Exit code: 0 if every frame could be counted; 1 if files are damaged or missing. The index is written all the same;
HypersimDataset leaves damaged frames out and says how many.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from mmengine.utils import ProgressBar

from genseg_mm.datasets.hypersim import LAYOUTS, UNREADABLE, Counts, Frame, HypersimFolder, read_split, write_index
from genseg_mm.datasets.instance_maps import read_instance_map, write_plain_map
from genseg_mm.files import parse_json, read_lines
from genseg_mm.launch import ToolParser, run_tool

NUM_NAMED = 20  # damaged files in the summary


def count_scene(folder: HypersimFolder, frames: list[Frame], plain_maps: Path | None = None) -> dict:
    """Counts one scene.

    Args:
        folder: Where the files lie.
        frames: Frames of one scene.
        plain_maps: Folder in which the ids are written uncompressed.

    Returns:
        ``scene``; ``counts``, {camera: {frame number: instances, UNREADABLE for a damaged file}}; ``instances`` seen
        in any frame of the scene; ``missing`` and ``damaged``, lists of messages.
    """
    counts, seen, missing, damaged = {}, set(), [], []
    for frame in frames:
        path = folder.instance_map(frame)
        missing += [str(file) for file in (path, folder.image(frame)) if not file.is_file()]
        if not path.is_file():
            continue
        try:
            instance_map = read_instance_map(path)
            ids = instance_ids(instance_map)
            number = len(ids)
            if plain_maps is not None:
                write_plain_map(folder.plain_map(frame, plain_maps), instance_map)
        except ValueError as error:
            ids, number = [], UNREADABLE
            damaged.append(str(error))
        seen.update(ids)
        counts.setdefault(frame.camera, {})[str(frame.number)] = number
    scene = frames[0].scene
    return dict(scene=scene, counts=counts, instances=len(seen), missing=missing, damaged=damaged)


def instance_ids(instance_map: np.ndarray) -> list[int]:
    """The ids of a map, (H, W), in order and without 0."""
    # Only pixels that differ from their left neighbour are sorted: some thousand of 786,432.
    changes = instance_map[:, 1:][instance_map[:, 1:] != instance_map[:, :-1]]
    ids = np.unique(np.concatenate([instance_map[:, 0], changes]))
    return ids[ids > 0].tolist()


def count_scenes(
    folder: HypersimFolder, frames: Iterable[Frame], partial: Path, workers: int, plain_maps: Path | None = None
) -> list[dict]:
    """Counts all scenes, those that ``partial`` holds already excepted."""
    scenes: dict[str, list[Frame]] = {}
    for frame in frames:
        scenes.setdefault(frame.scene, []).append(frame)
    key = dict(root=str(folder.root.resolve()), layout=folder.layout)
    if plain_maps is not None:
        key['plain_maps'] = str(plain_maps.resolve())
    results = {}
    for scene in _read_partial(partial, key):
        wanted = {(frame.camera, str(frame.number)) for frame in scenes.get(scene['scene'], ())}
        counted = {(camera, n) for camera, own in scene['counts'].items() for n in own}
        # A scene that gained files, or had damaged ones that may be fetched again by now, is counted anew.
        if wanted == counted and not scene['damaged'] and not scene['missing']:
            results[scene['scene']] = scene
    if results:
        print(f'{len(results)} of {len(scenes)} scenes were counted before: {partial}')
    left = {name: own for name, own in scenes.items() if name not in results}
    bar = ProgressBar(len(left)) if left else None
    known = partial.with_name(partial.name + '.tmp')
    known.write_text(''.join(json.dumps(line) + '\n' for line in (key, *results.values())))
    known.replace(partial)
    with partial.open('a') as file:
        for result in _map(folder, list(left.values()), workers, plain_maps):
            file.write(json.dumps(result) + '\n')
            file.flush()
            results[result['scene']] = result
            bar.update()
    print()
    return [results[name] for name in sorted(results)]


def _map(folder: HypersimFolder, scenes: list[list[Frame]], workers: int, plain_maps: Path | None) -> Iterator[dict]:
    if workers <= 1:
        yield from (count_scene(folder, frames, plain_maps) for frames in scenes)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(count_scene, [folder] * len(scenes), scenes, [plain_maps] * len(scenes))


def _read_partial(partial: Path, key: dict) -> list[dict]:
    if not partial.is_file():
        return []
    lines = [line for _, line in read_lines(partial)]
    where = f'{partial}, line'
    if not lines or not lines[0].endswith('\n') or parse_json(lines[0], f'{where} 1') != key:
        raise ValueError(
            f'{partial} is not of {key["root"]} in the {key["layout"]} layout: delete it to count from the beginning'
        )
    whole = [line for line in lines[1:] if line.endswith('\n')]  # the last may be cut
    return [parse_json(line, f'{where} {number}') for number, line in enumerate(whole, start=2)]


def summary(scenes: list[dict], counts: dict[Frame, Counts], min_instances: int, min_scene_instances: int) -> str:
    """What was counted and what the two thresholds leave."""
    reasons = Counter()
    for own in counts.values():
        if own.frame == UNREADABLE:
            reasons['damaged'] += 1
        elif own.scene < min_scene_instances:
            reasons['scene'] += 1
        elif own.frame < min_instances:
            reasons['frame'] += 1
        else:
            reasons['kept'] += 1
    bare = sum(scene['instances'] == 0 for scene in scenes)
    few = sum(scene['instances'] < min_scene_instances for scene in scenes)
    missing = [path for scene in scenes for path in scene['missing']]
    damaged = [text for scene in scenes for text in scene['damaged']]
    lines = [
        f'{len(counts)} frames of {len(scenes)} scenes; {bare} scenes have no instance at all',
        f'{reasons["scene"]:8d} frames dropped: {few} scenes with fewer than {min_scene_instances} instances',
        f'{reasons["frame"]:8d} frames dropped: fewer than {min_instances} instances',
        f'{reasons["damaged"]:8d} frames dropped: damaged files',
        f'{len(missing):8d} files missing',
        f'{reasons["kept"]:8d} frames kept',
    ]
    for title, entries in (('damaged', damaged), ('missing', missing)):
        lines += [f'{title}: {entry}' for entry in entries[:NUM_NAMED]]
        if len(entries) > NUM_NAMED:
            lines.append(f'{title}: and {len(entries) - NUM_NAMED} more')
    return '\n'.join(lines)


def prepare_hypersim(
    root: str | Path,
    out: str | Path,
    split_csv: str | Path | None = None,
    min_instances: int = 1,
    min_scene_instances: int = 10,
    layout: str = 'auto',
    workers: int = 1,
    plain_maps: str | Path | None = None,
) -> tuple[str, bool]:
    """Counts, and writes the index.

    Args:
        root: Folder of Hypersim.
        out: Index to write.
        split_csv: Official split file: only its public frames are counted. None takes every frame of the folder.
        min_instances: Frames with fewer are dropped.
        min_scene_instances: Scenes in whose frames together fewer are seen are dropped.
        layout: As for ``HypersimDataset``.
        workers: Processes.
        plain_maps: Folder in which all ids are written uncompressed, too.

    Returns:
        A summary, and whether every frame could be counted.

    Raises:
        ValueError: If plain_maps is the folder of Hypersim, whose files would be overwritten.
    """
    out, plain_maps = Path(out), None if plain_maps is None else Path(plain_maps)
    if plain_maps is not None and plain_maps.resolve() == Path(root).resolve():
        raise ValueError(f'--plain-maps {plain_maps}: expected another folder than that of Hypersim')
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = HypersimFolder.open(root, layout)
    frames = list(folder.frames()) if split_csv is None else read_split(split_csv, None)
    partial = out.with_name(out.name + '.part')
    scenes = count_scenes(folder, frames, partial, workers, plain_maps)
    counts = {
        Frame(scene['scene'], camera, int(number)): Counts(own, scene['instances'])
        for scene in scenes
        for camera, numbers in scene['counts'].items()
        for number, own in numbers.items()
    }
    settings = dict(min_instances=min_instances, min_scene_instances=min_scene_instances, layout=folder.layout)
    write_index(out, counts, settings)
    whole = not any(scene['missing'] or scene['damaged'] for scene in scenes)
    if whole:
        partial.unlink()  # kept otherwise: after fetching those files anew only their scenes are counted
    return summary(scenes, counts, min_instances, min_scene_instances), whole


def main() -> None:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', help='folder of Hypersim, as downloaded or converted')
    parser.add_argument('--out', writes='file', required=True, help='index to write')
    parser.add_argument('--split-csv', help='metadata_images_split_scene_v1.csv')
    parser.add_argument('--min-instances', type=int, default=1, help='of a frame (default: 1)')
    parser.add_argument('--min-scene-instances', type=int, default=10, help='of a scene (default: 10)')
    parser.add_argument('--layout', choices=LAYOUTS, default='auto')
    parser.add_argument(
        '--plain-maps', writes='folder', metavar='FOLDER', help='also write the ids uncompressed, there'
    )
    parser.add_argument('--workers', type=int, default=1, help='processes (default: 1)')
    args = parser.parse_args()
    text, whole = prepare_hypersim(**vars(args))
    print(f'{text}\nwrote {args.out}')
    sys.exit(0 if whole else 1)


if __name__ == '__main__':
    run_tool(main)
