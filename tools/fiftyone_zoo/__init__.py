"""A remote zoo source of FiftyOne: the models that come with genseg_mm, for ``dataset.apply_model``.

FiftyOne copies this folder and calls :func:`download_model` and :func:`load_model`; genseg_mm has to be installed.
"""

import shutil
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.models as fom
import numpy as np

import genseg_mm
from genseg_mm.files import read_json_dict
from genseg_mm.inferencers import GenSegInferencer


class GenSegModel(fom.Model):
    """Instances of a picture, or the masks of texts, as ``fiftyone.Detections`` with masks.

    Args:
        inferencer: Of a colorer, or of a GenMask.
        texts: What a GenMask is asked.
        automatic: Settings of the instances of a colorer.
    """

    def __init__(
        self, inferencer: GenSegInferencer, texts: list[str] | None = None, automatic: dict | None = None
    ) -> None:
        if inferencer.takes_texts and not texts:
            raise ValueError("texts: a GenMask needs what to look for: load_zoo_model(..., texts=['the red circle'])")
        self.inferencer = inferencer
        self.options = dict(texts=texts) if inferencer.takes_texts else dict(automatic=automatic or True)
        self.names = texts

    @property
    def media_type(self) -> str:
        """What samples have to be."""
        return 'image'

    def predict(self, arg: np.ndarray) -> fo.Detections:
        """The instances of one picture, RGB uint8 (H, W, 3)."""
        image = np.ascontiguousarray(np.asarray(arg)[..., ::-1])
        (found,) = self.inferencer(image, progress_bar=False, **self.options)['predictions']
        names = self.names or ['object'] * len(found['masks'])
        height, width = image.shape[:2]
        detections = []
        for mask, box, score, name in zip(found['masks'], found['bboxes'], found['scores'], names, strict=True):
            if not mask.any():
                continue
            left, top, right, bottom = (int(side) for side in box)
            detections.append(
                fo.Detection(
                    label=name,
                    bounding_box=[left / width, top / height, (right - left) / width, (bottom - top) / height],
                    mask=mask[top:bottom, left:right],
                    confidence=float(score),
                )
            )
        return fo.Detections(detections=detections)


def download_model(model_name: str, model_path: str) -> None:
    """Copies the weights, which come with the package, to where FiftyOne wants them."""
    shutil.copyfile(Path(genseg_mm.__file__).parent / 'weights' / Path(model_path).name, model_path)


def load_model(model_name: str, model_path: str, device: str | None = None, **options: Any) -> GenSegModel:
    """The model of a name of the manifest; ``texts`` for a GenMask, ``automatic`` for a colorer."""
    models = read_json_dict(Path(__file__).with_name('manifest.json'))['models']
    config = next(own['source'] for own in models if own['base_name'] == model_name)
    return GenSegModel(GenSegInferencer(config, model_path, device=device, show_progress=False), **options)
