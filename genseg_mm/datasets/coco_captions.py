"""COCO's captions, read from their official files."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from reprlib import repr as short_repr

from genseg_mm.datasets.caption_dataset import CaptionDataset
from genseg_mm.registry import DATASETS

LAYOUT = '<data_root>/annotations/captions_train2017.json and <data_root>/train2017/*.jpg'
_KEYS = dict(
    images=dict(id=int, file_name=str, height=int, width=int),
    annotations=dict(id=int, image_id=int, caption=str),
)


@DATASETS.register_module()
class CocoCaptionsDataset(CaptionDataset):
    """Pictures of COCO with about five captions each, for text-to-image generation; see :class:`CaptionDataset`.

    It reads ``captions_{train,val}{2014,2017}.json`` (mmdet's ``COCOCaptionDataset`` reads another format). Pictures
    without a caption and empty captions are left out and counted. An item also has ``height, width`` as annotated and
    ``caption_ids``.

    Args:
        data_root: Folder that the other paths are relative to.
        ann_file: The json.
        data_prefix: ``img_path`` is the folder of the pictures.
        check_images: Missing picture files are an error. Otherwise they are counted in a warning.
        **kwargs: As for :class:`CaptionDataset`.
    """

    def __init__(
        self,
        data_root: str = '',
        ann_file: str = 'annotations/captions_train2017.json',
        data_prefix: Mapping = dict(img_path='train2017/'),
        check_images: bool = False,
        **kwargs,
    ) -> None:
        if set(data_prefix) != {'img_path'}:
            raise ValueError(f'data_prefix must be dict(img_path=...), but got {dict(data_prefix)}')
        self.check_images = check_images
        super().__init__(
            data_root=str(data_root),
            ann_file=str(ann_file),
            data_prefix=dict(data_prefix),
            **kwargs,
        )

    def read_pictures(self) -> list[dict]:
        """Pictures in the order of the file."""
        content = self._read()
        captions: dict[int, list[tuple[int, str]]] = {
            image['id']: [] for image in content['images']
        }
        if len(captions) != len(content['images']):
            raise ValueError(f'{self.ann_file} lists an image id twice')
        for entry in content['annotations']:
            text = ' '.join(entry['caption'].split())
            if entry['image_id'] not in captions:
                raise ValueError(
                    f'{self.ann_file} has no image {entry["image_id"]}, asked for by its annotation {entry["id"]}'
                )
            if text:
                captions[entry['image_id']].append((entry['id'], text))
            else:
                self.leave_out('empty captions', str(entry['id']))
        pictures = []
        for image in content['images']:
            own = captions[image['id']]
            if not own:
                self.leave_out('pictures without a caption', image['file_name'])
                continue
            pictures.append(
                dict(
                    img_path=os.path.join(self.data_prefix['img_path'], image['file_name']),
                    img_id=image['id'],
                    height=image['height'],
                    width=image['width'],
                    captions=[text for _, text in own],
                    caption_ids=[caption_id for caption_id, _ in own],
                )
            )
        self._check_image_files([picture['img_path'] for picture in pictures])
        return pictures

    def _read(self) -> dict:
        if not os.path.isfile(self.ann_file):
            raise FileNotFoundError(
                f'ann_file: no file {self.ann_file!r}, expected {LAYOUT}. Our configs look in the folder that '
                'the environment variable GENSEG_DATA names (now '
                f'{os.environ.get("GENSEG_DATA", "unset, which means data")})'
            )
        try:
            with open(self.ann_file, encoding='utf-8') as file:
                content = json.load(file)
        except ValueError as error:
            raise ValueError(f'{self.ann_file} is not a whole JSON file: {error}') from error
        if not isinstance(content, dict) or not all(
            isinstance(content.get(key), list) for key in _KEYS
        ):
            raise ValueError(
                f'{self.ann_file}: expected a dict with lists {list(_KEYS)} (official captions), but got '
                f'{short_repr(content)}'
            )
        for key, fields in _KEYS.items():
            for index, entry in enumerate(content[key]):
                _check_entry(entry, fields, f'{self.ann_file}, {key}[{index}]')
        return content

    def _check_image_files(self, paths: Sequence[str]) -> None:
        """Compares with a listing of the folder: much faster than asking for every file."""
        folder = self.data_prefix['img_path']
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f'data_prefix img_path: folder {folder!r} does not exist, expected {LAYOUT}'
            )
        there = set(os.listdir(folder))
        missing = [path for path in paths if os.path.basename(path) not in there]
        if missing and self.check_images:
            raise FileNotFoundError(
                f'{len(missing)} of {len(paths)} pictures are missing, the first is {min(missing)}; '
                f'{self.ann_file} lists it'
            )
        if missing:
            self._log(
                f'{len(missing)} of {len(paths)} pictures are missing, the first is {min(missing)}',
                logging.WARNING,
            )


def _check_entry(entry: object, fields: Mapping[str, type], where: str) -> None:
    if not isinstance(entry, dict):
        raise ValueError(
            f'{where}: expected a dict with {list(fields)}, but got {short_repr(entry)}'
        )
    for key, kind in fields.items():
        if not isinstance(entry.get(key), kind):
            raise ValueError(
                f'{where}: {key} must be {kind.__name__}, but got {short_repr(entry.get(key))}'
            )
