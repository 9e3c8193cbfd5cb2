"""Writes a tiny Hypersim: drawn rooms in the published layout, for tests and first tries.

    python tools/dataset_tools/make_tiny_hypersim.py tiny_data
    python tools/dataset_tools/prepare_hypersim.py tiny_data/hypersim --out tiny_data/hypersim/index.csv

It has what trips readers of the real files: ids over 255 that are not contiguous, -1 on walls and on an object without
a label, a scene without any instance and one with few, pictures beside the one to read (diff.jpg, tonemap.jpg),
other HDF5 files beside the ids, and frames of the official split that were never published.
"""

import csv
from pathlib import Path

import cv2
import h5py
import numpy as np
from PIL import Image

from genseg_mm.launch import ToolParser, run_tool

# scene, partition, number of cameras, ids of the objects (-1: an object that nobody labelled)
SCENES = (
    ('ai_001_001', 'train', 2, (1, 3, 17, 18, 255, 256, 260, 517, 1030, 2051, 4165, 4166, -1)),
    ('ai_001_002', 'train', 1, (-1, -1, -1)),
    ('ai_001_003', 'train', 1, (2, 4, 9, 12, 300, 301, 302, 303, 512, 768, 1024, -1)),
    ('ai_002_001', 'val', 1, (5, 700, 3000)),
    ('ai_003_001', 'test', 1, (1, 2, 3, 4, 5, 6, 7, 8, 9, 300, 301)),
)
PRIVATE_FRAME = 1  # in the split file, but not published
SPLIT_FILE = 'metadata_images_split_scene_v1.csv'
SPLIT_COLUMNS = (
    'scene_name',
    'camera_name',
    'frame_id',
    'included_in_public_release',
    'exclude_reason',
    'split_partition_name',
)


def make_tiny_hypersim(
    data_root: str | Path, image_size: tuple[int, int] = (96, 128), num_frames: int = 3, converted: bool = False
) -> Path:
    """Writes five scenes with six cameras, and the split file.

    Args:
        data_root: Folder to write into; made if it does not exist.
        image_size: (height, width); the real pictures have (768, 1024).
        num_frames: Published frames per camera; their numbers are 0, 2, 3, ...
        converted: Write the reference implementation's form (``rgb/``, ``instance-rgb/`` with ids as colours) in place
            of the official one.

    Returns:
        ``data_root``.
    """
    data_root = Path(data_root)
    data_root.mkdir(parents=True, exist_ok=True)
    rows = []
    for scene, partition, num_cameras, ids in SCENES:
        for camera in range(num_cameras):
            name = f'cam_{camera:02d}'
            for number in range(num_frames + 1):
                public = number != PRIVATE_FRAME
                reason = '' if public else 'the picture shows a logo'
                rows.append((scene, name, number, public, reason, partition if public else ''))
                if public:
                    picture, labels = _draw(scene, ids, camera, number, image_size)
                    write = _write_converted if converted else _write_official
                    write(data_root, scene, name, f'frame.{number:04d}', picture, labels)
    with (data_root / SPLIT_FILE).open('w', newline='') as file:
        csv.writer(file).writerows([SPLIT_COLUMNS, *rows])
    return data_root


def _draw(
    scene: str, ids: tuple[int, ...], camera: int, number: int, image_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A view into a room, (H, W, 3) BGR uint8, and its ids, (H, W) int16, -1 = none."""
    height, width = image_size
    room = np.random.default_rng([int(part) for part in scene.split('_')[1:]])
    picture = np.empty((height, width, 3), np.float32)
    ceiling, wall, floor = room.integers(120, 230, (3, 3))
    picture[: height // 6], picture[height // 6 : -height // 4] = ceiling, wall
    picture[-height // 4 :] = floor
    picture *= np.linspace(1.05, 0.8, width)[:, None]  # light from the left
    labels = np.full((height, width), -1, np.int16)
    # The objects stand in the room; the camera turns, so that they move and some leave the view.
    turn = (number * 0.07 + camera * 0.3) * width
    for own in ids:
        centre = room.uniform((0.0, 0.2), (1.4, 0.9)) * (width, height) - (turn, 0)
        size = room.uniform(0.06, 0.17, 2) * min(height, width)
        colour, kind = room.integers(20, 236, 3), room.integers(3)
        mask = _shape(kind, centre, size, room.uniform(0, 180), image_size)
        shade = np.linspace(1.1, 0.7, height)[:, None, None] * colour
        picture[mask] = np.broadcast_to(shade, picture.shape)[mask]
        labels[mask] = own
    noise = np.random.default_rng([number, camera]).normal(0, 3, picture.shape)
    return (picture + noise).clip(0, 255).astype(np.uint8), labels


def _shape(kind: int, centre: np.ndarray, size: np.ndarray, angle: float, image_size: tuple[int, int]) -> np.ndarray:
    """Mask (H, W) of an ellipse, a turned box or a triangle."""
    mask = np.zeros(image_size, np.uint8)
    x, y = centre.round().astype(int).tolist()
    a, b = np.maximum(size.round(), 2).astype(int).tolist()
    if kind == 0:
        cv2.ellipse(mask, (x, y), (a, b), angle, 0, 360, 1, -1)
    elif kind == 1:
        corners = cv2.boxPoints(((x, y), (2 * a, 2 * b), angle))
        cv2.fillPoly(mask, [corners.round().astype(np.int32)], 1)
    else:
        cv2.fillPoly(mask, [np.array([(x - a, y + b), (x + a, y + b), (x, y - b)], np.int32)], 1)
    return mask.astype(bool)


def _write_official(root: Path, scene: str, camera: str, frame: str, picture: np.ndarray, labels: np.ndarray) -> None:
    preview = root / scene / 'images' / f'scene_{camera}_final_preview'
    geometry = root / scene / 'images' / f'scene_{camera}_geometry_hdf5'
    for folder in (preview, geometry):
        folder.mkdir(parents=True, exist_ok=True)
    for kind, content in (('color', picture), ('diff', 255 - picture), ('tonemap', picture // 2)):
        cv2.imwrite(str(preview / f'{frame}.{kind}.jpg'), content, [cv2.IMWRITE_JPEG_QUALITY, 95])
    entities = np.where(labels > 0, labels, 9000).astype(np.int32)  # walls have an entity as well
    classes = np.where(labels > 0, 1 + labels % 40, 1).astype(np.int16)
    for kind, content in (('semantic_instance', labels), ('semantic', classes), ('render_entity_id', entities)):
        with h5py.File(geometry / f'{frame}.{kind}.hdf5', 'w') as file:
            file.create_dataset('dataset', data=content, compression='gzip')


def _write_converted(root: Path, scene: str, camera: str, frame: str, picture: np.ndarray, labels: np.ndarray) -> None:
    preview = root / 'rgb' / scene / 'images' / f'scene_{camera}_final_preview'
    geometry = root / 'instance-rgb' / scene / 'images' / f'scene_{camera}_geometry_hdf5'
    for folder in (preview, geometry):
        folder.mkdir(parents=True, exist_ok=True)
    for kind, content in (('color', picture), ('diff', 255 - picture)):
        cv2.imwrite(str(preview / f'{frame}.{kind}.jpg'), content, [cv2.IMWRITE_JPEG_QUALITY, 95])
    Image.fromarray(id_colours(labels)).save(geometry / f'{frame}.png')


def id_colours(labels: np.ndarray) -> np.ndarray:
    """A colour of its own for each id, (H, W, 3) RGB uint8; black where there is none."""
    codes = np.where(labels > 0, labels.astype(np.int64) * 40503 % 2**24, 0)  # odd: one to one
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1).astype(np.uint8)


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('out', writes='folder', help='folder for GENSEG_DATA; the files go into its hypersim/')
    parser.add_argument('--image-size', type=int, nargs=2, default=(96, 128), metavar=('H', 'W'))
    parser.add_argument('--frames', type=int, default=3, help='published frames per camera')
    parser.add_argument('--converted', action='store_true', help="the reference's converted form")
    args = parser.parse_args()
    root = Path(args.out) / 'hypersim'
    print(f'wrote {make_tiny_hypersim(root, tuple(args.image_size), args.frames, args.converted)}')


if __name__ == '__main__':
    run_tool(main)
