"""Pictures with captions, for text-to-image generation: what their datasets share, and COCO's official files."""

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence

from genseg_mm.datasets.annotation_files import CAPTION, IMAGE, picture_path, read_coco, where_configs_look
from genseg_mm.datasets.leakage import coco_image_id
from genseg_mm.datasets.seeded_access import CountedVisits, checked_choice
from genseg_mm.registry import DATASETS

LAYOUT = '<data_root>/annotations/captions_train2017.json and <data_root>/train2017/*.jpg'


class CaptionDataset(CountedVisits):
    """Pictures with captions, for text-to-image generation.

    In test every (picture, caption) is one item. In training every picture is one item, whose caption is drawn anew at
    each access from a generator seeded by (seed, index, visit), as :class:`RefCOCODataset` draws its sentences: the
    visit comes with the index if the sampler hands out such indices (``genseg_mm.Visit``), otherwise the dataset
    counts its accesses itself, over all workers of this process.

    An item has ``img_path, img_id``, ``text``, ``captions`` (all of the picture), ``task='image'``, ``seg_fields=[]``,
    ``subset`` if given, in training ``visit``, and ``height, width`` where the source states them. It goes through
    ``LoadImage``, ``TextPrompt`` and ``PackGenSegInputs`` as referring items do, and mixes with them in a
    ``MixedDataset``.

    A square that keeps the aspect: the shorter side first, then a crop. Resize's long limit
    has to be out of reach, or it would bound the shorter side::

        dict(type='genseg_mm.AntialiasedResize', scale=(512, 10**6), keep_ratio=True),
        dict(type='mmseg.RandomCrop', crop_size=(512, 512)),     # in test: dict(type='mmcv.CenterCrop', crop_size=512)

    ``left_out`` names what was left out, by reason; its counts are logged. That is every text that is none (null, NaN,
    missing, empty, or with a lone surrogate, which stops a tokenizer); a text of another type is an error.

    Args:
        caption: ``'all'`` (default in test), ``'random'`` (default in training) or ``'first'``, one item per picture.
        exclude_images: Pictures to leave out of training, since they are test pictures of other datasets: as
            ``sources`` of :func:`genseg_mm.datasets.leakage.evaluation_image_ids`. COCO's ids are the same in
            2014 and 2017, and are read from file names where a source has no ids.
        allow_outside: Whether the paths of pictures may leave data_root and the folder of the pictures.
        subset: Name of the items' part in an evaluation of several.
        test_mode: See above.
        **kwargs: As for :class:`CountedVisits`: seed, pipeline, and those of ``mmengine.dataset.BaseDataset``.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If an argument or the content of a file is wrong, or no picture is left.
    """

    def __init__(
        self,
        caption: str | None = None,
        exclude_images: str | int | Sequence[str | int] | None = None,
        allow_outside: bool = False,
        subset: str | None = None,
        test_mode: bool = False,
        **kwargs,
    ) -> None:
        caption = caption or ('all' if test_mode else 'random')
        caption = checked_choice('caption', caption, test_mode)
        if exclude_images and test_mode:
            raise ValueError('exclude_images is for training, but got test_mode=True')
        self.caption, self.subset, self.allow_outside = caption, subset, allow_outside
        super().__init__(exclude_images=exclude_images, test_mode=test_mode, **kwargs)

    @abstractmethod
    def read_pictures(self) -> list[dict]:
        """Items without ``text``: ``img_path``, ``img_id``, ``captions`` (cleaned, at least one), and more."""

    def load_data_list(self) -> list[dict]:
        """Reads the source and leaves out pictures of evaluation sets."""
        self.left_out.clear()
        pictures = self.drop_excluded(
            self.read_pictures(), lambda picture: (picture['img_id'], coco_image_id(picture['img_path']))
        )
        self.log_left_out()
        if not pictures:
            found = {reason: len(names) for reason, names in self.left_out.items()}
            raise ValueError(
                f'{self._name}: no picture with a caption is left of {self.data_root!r}; left out are {found or "none"}'
            )
        common = dict(task='image', **({'subset': self.subset} if self.subset else {}))
        for picture in pictures:
            picture.update(common, seg_fields=[])
        num_captions = sum(len(picture['captions']) for picture in pictures)
        self._log(f'{len(pictures)} pictures with {num_captions} captions')
        if self.caption == 'random':
            return pictures
        shown = None if self.caption == 'all' else 1
        return [dict(picture, text=text) for picture in pictures for text in picture['captions'][:shown]]

    @property
    def _name(self) -> str:
        return f'{type(self).__name__} {self.ann_file!r}'

    def get_data_info(self, idx: int) -> dict:
        """Item ``idx``; in training with a newly drawn caption (see the class)."""
        info = super().get_data_info(idx)
        if self.caption == 'random':
            info['text'] = info['captions'][self._choose(info, len(info['captions']))]
        return info


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
