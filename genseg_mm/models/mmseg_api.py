"""What ``mmseg.apis.init_model`` and ``inference_model`` expect of a model."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

from mmengine.config import Config


class MMSegApiMixin:
    """Lets mmseg's functions build a model of ours and run it on pictures.

    ::

        model = mmseg.apis.init_model('configs/genmask/genmask_sana_shapes_tiny.py', 'iter_2800.pth', device='cpu')
        model.text = 'the red circle'                              # GenMask; mmseg hands over no text
        mmseg.apis.inference_model(model, 'scene.png').pred_sem_seg

    ``inference_model`` reads a picture through ``model.cfg.test_pipeline``. Ours load annotations and prompts, too, so
    the config that the model gives back has a test pipeline for a picture alone, which is prepared as by
    :class:`genseg_mm.inferencers.GenSegInferencer`.

    Attributes:
        text: What GenMask segments in such pictures. None warns, and stands for the empty text.
        takes_texts: Whether the model needs one.
    """

    text: str | None = None
    takes_texts = False

    @property
    def cfg(self) -> Config:
        """The config, whose ``test_pipeline`` reads single pictures (a path, or BGR as an array)."""
        if '_cfg' not in self.__dict__:
            raise AttributeError('cfg')
        cfg = self.__dict__['_cfg']
        if isinstance(cfg, Config):
            # Anew each time, since mmseg changes the first transform for arrays: its own, found in its scope.
            load = dict(type='genseg_mm.LoadImage', _scope_='mmseg')
            cfg.test_pipeline = [load, dict(type=self._picture_transform)]
        return cfg

    @cfg.setter
    def cfg(self, cfg: Config) -> None:
        self.__dict__['_cfg'] = copy.copy(cfg)
        self.__dict__['_given_cfg'] = cfg

    def _picture_transform(self) -> Callable[[dict], dict]:
        from genseg_mm.inference.network_pipeline import NetworkPipeline

        cfg = self.__dict__['_given_cfg']
        prepare = NetworkPipeline(self, cfg, cfg.get('default_scope') or 'genseg_mm')

        def transform(results: dict) -> dict:
            text = self.text if self.takes_texts else None
            if self.takes_texts and text is None:
                warnings.warn(
                    "mmseg's inference_model hands over no text: set model.text = 'the red circle'; segmenting for ''",
                    stacklevel=2,
                )
                text = ''
            return prepare(results['img'], results.get('img_path') or '', text, None)

        return transform


def refuse_mmseg_settings(owner: str, **settings: Any) -> None:
    """``pretrained`` and ``train_cfg``, which mmseg sets to None in any config, mean nothing to ours.

    Raises:
        ValueError: If one is something else.
    """
    for name, value in settings.items():
        if value is not None:
            raise ValueError(f'{owner} has no setting {name}: expected None, but got {value!r}')
