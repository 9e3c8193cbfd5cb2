"""COCO's captions, read from their official files."""

import os
from collections.abc import Mapping

from genseg_mm.datasets.annotation_files import picture_path, where_configs_look
from genseg_mm.datasets.captions.caption_dataset import CaptionDataset
from genseg_mm.datasets.coco_annotations import CAPTION, IMAGE, read_coco
from genseg_mm.registry import DATASETS

LAYOUT = '<data_root>/annotations/captions_train2017.json and <data_root>/train2017/*.jpg'


@DATASETS.register_module()
class CocoCaptionsDataset(CaptionDataset):
    """Pictures of COCO with about five captions each, for text-to-image generation; see :class:`CaptionDataset`.

    It reads ``captions_{train,val}{2014,2017}.json`` (mmdet's ``COCOCaptionDataset`` reads another format). Pictures
    without a caption and captions that are none (see :class:`CaptionDataset`) are left out and counted. An item also
    has ``height, width`` as annotated and ``caption_ids``.

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
        self.check_images = check_images
        super().__init__(data_root=str(data_root), ann_file=str(ann_file), data_prefix=data_prefix, **kwargs)

    def read_pictures(self) -> list[dict]:
        """Pictures in the order of the file."""
        content = self._read()
        captions: dict[int, list[tuple[int, str]]] = {image['id']: [] for image in content['images']}
        for index, entry in enumerate(content['annotations']):
            where = f'{self.ann_file}, annotations[{index}]: caption of id {entry["id"]}'
            text = self.usable_text(entry.get('caption'), where, str(entry['id']))
            if text:
                captions[entry['image_id']].append((entry['id'], ' '.join(text.split())))
        pictures = []
        for image in content['images']:
            own = captions[image['id']]
            if not own:
                self.leave_out('pictures without a caption', image['file_name'])
                continue
            path = picture_path(
                self.data_prefix['img_path'],
                image['file_name'],
                self.data_root,
                f'{self.ann_file}, image {image["id"]}',
                self.allow_outside,
            )
            pictures.append(
                dict(
                    img_path=path,
                    img_id=image['id'],
                    height=image['height'],
                    width=image['width'],
                    captions=[text for _, text in own],
                    caption_ids=[caption_id for caption_id, _ in own],
                )
            )
        self.check_pictures([picture['img_path'] for picture in pictures], LAYOUT, self.check_images)
        return pictures

    def _read(self) -> dict:
        if not os.path.isfile(self.ann_file):
            raise FileNotFoundError(f'ann_file: no file {self.ann_file!r}, expected {LAYOUT}. {where_configs_look()}')
        content = read_coco(self.ann_file, dict(images=IMAGE, annotations=CAPTION))
        captions = content['annotations']
        if captions and not any('caption' in entry for entry in captions):
            raise ValueError(
                f"{self.ann_file}, annotations[0] lacks the key 'caption', it has {sorted(captions[0])}: is it a "
                'file of captions?'
            )
        return content
