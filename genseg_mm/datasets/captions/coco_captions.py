"""COCO's captions, read from their official files."""

import logging
import os
from collections.abc import Mapping, Sequence
from reprlib import repr as short_repr

from genseg_mm.datasets.annotation_files import (
    check_keys,
    missing_pictures,
    read_json,
    where_configs_look,
)
from genseg_mm.datasets.captions.caption_dataset import CaptionDataset
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
                f'ann_file: no file {self.ann_file!r}, expected {LAYOUT}. {where_configs_look()}'
            )
        content = read_json(self.ann_file)
        if not isinstance(content, dict) or not all(
            isinstance(content.get(key), list) for key in _KEYS
        ):
            raise ValueError(
                f'{self.ann_file}: expected a dict with lists {list(_KEYS)} (official captions), but got '
                f'{short_repr(content)}'
            )
        for key, fields in _KEYS.items():
            for index, entry in enumerate(content[key]):
                check_keys(entry, fields, f'{self.ann_file}, {key}[{index}]')
        return content

    def _check_image_files(self, paths: Sequence[str]) -> None:
        message = missing_pictures(paths, self.data_prefix['img_path'], LAYOUT)
        if message and self.check_images:
            raise FileNotFoundError(f'{message}; {self.ann_file} lists it')
        if message:
            self._log(message, logging.WARNING)
