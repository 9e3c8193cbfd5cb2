"""Inference: images and prompts in, colour maps, masks and pictures out."""

import os
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.infer import BaseInferencer
from mmseg.structures import SegDataSample
from rich.progress import track
from torch import nn

from genseg_mm.datasets.transforms import NetworkPipeline
from genseg_mm.devices import checked_device, device_of
from genseg_mm.files import check_writable
from genseg_mm.finite import check_finite
from genseg_mm.inference.build_model import build_description_writer, build_model, chosen_weights, read_config
from genseg_mm.inference.generation import PictureGeneration
from genseg_mm.inference.images import ColoredImage, Job, is_folder, list_sources, read_image, read_jobs, run_in_order
from genseg_mm.inference.prompts import Prompts, check_options, is_set, split_prompts
from genseg_mm.inference.results import (
    ColorMap,
    arrays_of,
    check_display,
    color_array,
    colored_sample,
    draw_prediction,
    generated_sample,
    instances_of,
    save_picture,
    save_prediction,
    show_picture,
)
from genseg_mm.inference.resuming import left_predictions, read_prediction, run_key
from genseg_mm.inference.taken_names import check_names
from genseg_mm.models import Gen2Seg, GenMask
from genseg_mm.models.coloring_segmentor import as_predictor
from genseg_mm.models.gen2seg import load_released
from genseg_mm.models.tiled_maps import checked_tiles
from genseg_mm.network_sizes import checked_processing_size
from genseg_mm.precision import SWITCH_NAMES, evaluation_autocast, evaluation_settings, prepare_evaluation, switched


class GenSegInferencer(PictureGeneration, BaseInferencer):
    """Runs Gen2Seg (points, boxes or no prompt) and GenMask (texts) on images of any size, or makes images of texts.

    ::

        inferencer = GenSegInferencer.from_pretrained('reachomk/gen2seg-sd')      # released weights
        inferencer = GenSegInferencer('configs/gen2seg/....py', 'iter_3200.pth')  # trained ones
        result = inferencer('street.jpg', points=[[320, 240], [80, 200]], out_dir='out')
        result['predictions'][0]['masks']                                         # (2, H, W) bool

        inferencer.set_image('street.jpg')                                        # colour map once,
        inferencer.prompt(points=[[320, 240]])['masks']                           # then many prompts

        inferencer = GenSegInferencer('configs/genmask/....py', 'iter_8000.pth')
        inferencer('street.jpg', texts='what to stop at?', describe=True)         # two-stage reasoning
        inferencer(texts='a red car', task='generate')['predictions'][0]['image'] # (H, W, 3) RGB

    The network sees an image at ``image_size`` of the call; else at ``processing_size``; else as ``Resize`` of the
    config's test pipeline makes it; else as the model asks (``network_resize()``: the longer side of 768 for released
    Stable Diffusion weights, the square of the MAE, the size of its training for a tiny model), always with
    antialiasing. Results have the size of the image. The network runs in the precision of its training, or in the
    config's ``evaluation_dtype``; four arguments at the end make it faster (docs/speed.md).

    Args:
        model: Path of a config, name of a model in ``configs/*/metafile.yaml`` (trained, or an error), saved or
            released folder, config, or a built model: ``Gen2Seg``, ``GenMask``, or a segmentor of mmseg behind
            ``InstanceColoringHead``, whose colour maps take the same prompts.
        weights: Trained weights (.pth, .safetensors), all of which have to fit; 'random' for an untrained model.
            Default: those of the name, of a config none. A config in a checkpoint is not used.
        device: Such as 'cuda:0'; None takes the best there is, and leaves a built model where it is.
        scope: In which the types of the config are found; default: its ``default_scope``.
        show_progress: Whether calls with several images show a progress bar.
        processing_size: Size that the network works at, whatever config and model say: the longer side, (height,
            width), or 0 for the own size of an image.
        tiles: Settings of ``Gen2Seg``'s ``tiles`` in place of the model's; True for the defaults, False for none.
        precision: Of the network, 'fp32', 'bf16' or 'fp16'; default: as its config says.
        compile: True, or arguments of ``torch.compile``: compiles the network in its first pass, for many pictures.
        channels_last: Lays convolutions out with their channels last.
        codec_precision: Of frozen autoencoders, likewise; default: as they were loaded. It stays with a built model.

    Raises:
        FileNotFoundError: If config or weights do not exist.
        ValueError: If they are damaged, do not fit each other, or the model is of another kind.
    """

    preprocess_kwargs = {'image_size', 'describe'}
    forward_kwargs = {'automatic', 'prompting'}
    visualize_kwargs = {'return_vis', 'show', 'wait_time', 'no_save_vis'}
    postprocess_kwargs = {'return_datasamples', 'no_save_pred'}

    def __init__(
        self,
        model: str | PathLike | Config | dict | nn.Module,
        weights: str | PathLike | None = None,
        device: str | torch.device | None = None,
        scope: str | None = None,
        show_progress: bool = True,
        processing_size: int | Sequence[int] | None = None,
        tiles: dict[str, float] | bool | None = None,
        precision: str | None = None,
        compile: bool | dict = False,
        channels_last: bool = False,
        codec_precision: str | None = None,
    ) -> None:
        if isinstance(model, nn.Module):
            if weights is not None:
                raise ValueError('weights go with a config, but got a built model: load them into it before')
            self.cfg = getattr(model, 'cfg', None) or Config()
            self.model = (model if device is None else model.to(checked_device(device))).eval()
        elif isinstance(model, (str, os.PathLike)) and Path(os.path.expanduser(model)).is_dir():
            if weights is not None:
                raise ValueError(f'weights go with a config, but got the folder {os.fspath(model)}, which has its own')
            self.model = load_released(model, device=checked_device(device))
            self.cfg = getattr(self.model, 'cfg', None) or Config()
        else:
            self.cfg, own_weights = read_config(model)
            weights = chosen_weights(model, weights, own_weights)
            self.model = build_model(self.cfg, weights, device, scope)
        self.cfg = switched(self.cfg, precision, compile, channels_last, codec_precision)
        prepare_evaluation(self.model, self.cfg, device_of(self.model))
        self.model = as_predictor(self.model)
        self.takes_texts = isinstance(self.model, GenMask)
        if processing_size is not None:
            self.model.processing_size = checked_processing_size(processing_size)
        if tiles is not None:
            if not isinstance(self.model, Gen2Seg):
                raise ValueError(f'tiles: expected a Gen2Seg of any colorer, but got {type(self.model).__name__}')
            self.model.tiles = checked_tiles(tiles)
        self.scope = scope or self.cfg.get('default_scope') or 'genseg_mm'
        self.show_progress = show_progress
        self.pipeline = self._init_pipeline(self.cfg)
        self.pipeline.size_by_hand = processing_size is not None
        self.collate_fn = pseudo_collate
        self.description_writer: Callable | None = None  # built from the config when it is first asked for
        self._current: ColoredImage | None = None  # of set_image

    @classmethod
    def from_pretrained(
        cls, source: str | PathLike, device: str | torch.device | None = None, **overrides: Any
    ) -> 'GenSegInferencer':
        """Opens released weights, or a model that ``save_pretrained`` wrote; the kind is recognised.

        Args:
            source: Folder or hub id of a Stable Diffusion pipeline (``reachomk/gen2seg-sd``), of a
                ``ViTMAEForPreTraining`` (``reachomk/gen2seg-mae-h``) or of a saved Gen2Seg or GenMask.
            device: Such as 'cuda:0'; None takes the best there is.
            **overrides: ``precision`` and the other switches of speed, as of the class; settings of the model over
                those saved, or of the public code (the preset 'as_published'), as ``processing_size=0`` or
                ``output='float'``: :func:`genseg_mm.models.gen2seg.load_released`.
        """
        device = checked_device(device)
        speed = {key: overrides.pop(key) for key in SWITCH_NAMES if key in overrides}
        return cls(load_released(os.fspath(source), device='cpu', **overrides), device=device, **speed)

    def __call__(
        self,
        inputs: Any = None,
        points: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
        texts: Any = None,
        batch_size: int = 1,
        automatic: bool | dict | None = None,
        return_datasamples: bool = False,
        return_vis: bool = False,
        out_dir: str | PathLike = '',
        task: str = 'segment',
        **kwargs: Any,
    ) -> dict:
        """Predicts images.

        Prompts are those of a single image; one list (or None) for each image of a list; or those of every image of a
        folder, as on the command line.

        Args:
            inputs: Path of an image or of a folder (with the folders below), BGR array (H, W, 3) uint8, PIL image, or a
                list of those (no folders); see :func:`genseg_mm.inference.images.read_image` for grey, alpha and EXIF.
            points: (K, 2), K prompts of one point, or (K, P, 2); (x, y) in pixels of the image.
            point_labels: (K,) or (K, P), 1 positive (default), 0 negative.
            boxes: (K, 4), xyxy in pixels of the image; alone, or one for each prompt of points.
            texts: Referring expressions of GenMask for each image, a string or a list; one mask each. A single string
                stands for all images.
            batch_size: Images that the network takes at once; those share a batch that it sees at one size.
            automatic: True, or settings of ``Gen2Seg.automatic_instances``: instances for images without prompts.
                False: none. Default: as the model's own ``automatic`` says.
            return_datasamples: Give predictions as ``SegDataSample``.
            return_vis: Give the pictures as well; without this, ``out_dir`` and ``show``, none are drawn.
            out_dir: Folder for ``vis/<name>.png``, ``preds/<name>.json`` (masks as COCO RLE) and ``preds/<name>.png``
                (the colour map, rounded). Names of a folder are paths below it (with endings where two are the same);
                arrays are numbered behind what is there. Predictions of another picture of that name are an error.
            task: 'segment', or 'generate': pictures of the texts, without inputs, with settings and results of
                :meth:`generate`.
            **kwargs: ``describe``: True has the config's ``description_writer`` (or the attribute of this name) refine
                the texts of GenMask first; the refined ones are its prompts, and given back as ``descriptions``;
                ``image_size``, (height, width) or one number, of the network; ``prompting``, settings of
                ``masks_from_points`` over those of the model; ``show``, ``wait_time``, ``no_save_vis``,
                ``no_save_pred``; ``progress_bar`` (default: where there are several images); ``on_error``: 'raise' or
                'skip' images that cannot be read, whose prediction is None, and are logged; ``force`` replaces those.

        Returns:
            ``predictions``, one per image, with ``masks`` (K, H, W) bool, ``scores`` (K,), ``bboxes`` (K, 4) xyxy and,
            of Gen2Seg, ``color_map`` (H, W, 3) float32 RGB in [0, 255], all at the size of the image;
            ``visualization``, one RGB picture per image, or None without ``return_vis``.

        Raises:
            FileExistsError, FileNotFoundError: If a name is taken in ``out_dir``; if a path does not exist.
            ValueError: If an image is damaged, or prompts do not fit image or model; with the name of the image.
        """
        if task == 'generate':
            self._check_generates(inputs, points, point_labels, boxes, automatic, return_datasamples)
            return self.generate(texts, batch_size=batch_size, return_vis=return_vis, out_dir=out_dir, **kwargs)
        if task != 'segment':
            raise ValueError(f"task must be 'segment' or 'generate', but got {task!r}")
        results = list(
            self.stream(
                inputs, points, point_labels, boxes, texts, batch_size, automatic=automatic, out_dir=out_dir,
                return_datasamples=return_datasamples, return_vis=return_vis, **kwargs,
            )
        )  # fmt: skip
        predictions, pictures = ([result[number] for result in results] for number in (0, 1))
        return dict(predictions=predictions, visualization=pictures if return_vis else None)

    def stream(
        self,
        inputs: Any,
        points: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
        texts: Any = None,
        batch_size: int = 1,
        out_dir: str | PathLike = '',
        progress_bar: bool | None = None,
        on_error: str = 'raise',
        resume: bool = False,
        force: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[dict | SegDataSample | None, np.ndarray | None]]:
        """A call whose results come one by one, in order, as (prediction, picture), and are not kept.

        For folders whose predictions do not fit into memory. With ``resume``, images whose predictions a run of the
        same model, prompts and settings has left in ``out_dir`` are not predicted again: their masks, scores and boxes
        are read from there.
        """
        if out_dir:
            out_dir = check_writable(out_dir, 'out_dir')
        sources, is_single = list_sources(inputs, out_dir)
        if out_dir and not force:
            check_names([(source.stem, source.path) for source in sources], out_dir)
        names = [source.name for source in sources]
        prompts = split_prompts(names, is_single, points, point_labels, boxes, texts, is_folder(inputs))
        preprocess, forward, visualize, postprocess = self._dispatch_kwargs(**kwargs)
        if preprocess.get('describe') and not self.takes_texts:
            raise ValueError(f'describe is for the texts of GenMask, but got {type(self.model).__name__}')
        check_options(prompts, self.takes_texts, **forward)
        if visualize.get('show'):
            check_display()
        saves = out_dir and not postprocess.get('no_save_pred')
        key = run_key(self.model, **preprocess, **forward, **evaluation_settings(self.cfg)) if saves else None
        if resume and (key is None or visualize.get('show') or postprocess.get('return_datasamples')):
            raise ValueError('resume goes on with what is in out_dir: expected out_dir, saved predictions and no show')
        left = left_predictions(sources, prompts, out_dir, key) if resume else {}
        todo = [number for number, source in enumerate(sources) if source.stem not in left]
        jobs = run_in_order(
            read_jobs([sources[number] for number in todo], [prompts[number] for number in todo], on_error),
            lambda job: self.preprocess(job, **preprocess),
            lambda batch: self.forward(batch, **forward),
            batch_size,
        )
        show_bar = (self.show_progress and len(sources) > 1) if progress_bar is None else progress_bar
        for source in track(sources, description='Inference', disable=not show_bar):
            if source.stem in left:
                yield read_prediction(left[source.stem]), None
                continue
            job = next(jobs)
            if job.image is None:
                yield None, None
                continue
            job.sample = self._sample(job)
            picture = self.visualize(job, out_dir=out_dir, **visualize)
            yield self.postprocess(job, picture, out_dir=out_dir, run=key, **postprocess), picture
        list(jobs)  # counts the images that were skipped

    def set_image(self, image: Any, image_size: int | Sequence[int] | None = None) -> np.ndarray:
        """Computes the colour map of one image, for :meth:`prompt`.

        Args:
            image: As ``inputs`` of a call.
            image_size: (height, width) of the network.

        Returns:
            The colour map, (H, W, 3) float32 RGB in [0, 255].
        """
        self._current = None
        self._current = self.color_image(image, image_size)
        return color_array(self._current.colors).view(ColorMap)

    def color_image(self, image: Any, image_size: int | Sequence[int] | None = None) -> ColoredImage:
        """The colour map of one image, to be kept by the caller: for programs that hold several images at once.

        Args:
            image: As ``inputs`` of a call.
            image_size: (height, width) of the network.

        Returns:
            What :meth:`prompt` takes as ``image``.
        """
        (source, *_), is_single = list_sources(image)
        if not is_single or self.takes_texts:
            what = 'GenMask, which has no colour map' if is_single else 'a list or folder'
            raise ValueError(f'set_image takes one image and a Gen2Seg model, but got {what}')
        job = Job(source, Prompts(), read_image(source))
        sample = self._predict(list(self.preprocess(job, image_size)))[0]
        check_finite(colors := sample.pred_color_map.data, 'colours', job.source.name)
        return ColoredImage(job.source.name, colors, sample.pred_network_map.data)

    def prompt(
        self,
        points: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
        automatic: bool | dict | None = None,
        image: ColoredImage | None = None,
        **prompting: Any,
    ) -> dict[str, np.ndarray]:
        """Masks of the image of :meth:`set_image`; the network does not run again.

        Args:
            points: (K, 2) or (K, P, 2).
            point_labels: (K,) or (K, P).
            boxes: (K, 4).
            automatic: True, or settings: instances without prompts.
            image: Of :meth:`color_image`, in place of that of ``set_image``.
            **prompting: Settings of ``masks_from_points`` over those of the model.

        Returns:
            ``masks`` (K, H, W) bool, ``scores`` (K,), ``bboxes`` (K, 4).
        """
        image = image or self._current
        if image is None:
            raise ValueError('prompt needs an image: call set_image before')
        prompts = split_prompts([image.name], True, points, point_labels, boxes)[0]
        if prompts.has_geometry == is_set(automatic):
            raise ValueError('prompt needs either points or boxes, or automatic=True')
        check_options([prompts], False, automatic, prompting)
        prompts.check(image.name, tuple(image.colors.shape[1:]))
        found = instances_of(self.model, image.colors, image.network_map, prompts, image.name, automatic, prompting)
        return arrays_of(found)

    def video(
        self,
        path: str | PathLike,
        points: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
        texts: Any = None,
        out_dir: str | PathLike = 'outputs',
        **options: Any,
    ) -> dict[str, Any]:
        """Predicts a video frame by frame: see :mod:`genseg_mm.inference.videos`, also for what comes back.

        Args:
            path: Of the video.
            points: As of a call, on one frame; their colours are carried along.
            point_labels: As of a call.
            boxes: As of a call, on the same frame.
            texts: Of GenMask, asked of every frame.
            out_dir: Folder of ``preds/<name>.json`` and ``vis/<name>.webm``. What a run that was ended has left there
                is gone on with.
            **options: Of :class:`genseg_mm.inference.videos.VideoPrediction`.
        """
        from genseg_mm.inference.videos import VideoPrediction

        out_dir = check_writable(out_dir, 'out_dir')
        (prompts,) = split_prompts([f'video {path}'], True, points, point_labels, boxes, texts)
        check_options([prompts], self.takes_texts, options.get('automatic'), options.get('prompting'))
        options = dict(show_progress=self.show_progress) | options
        return VideoPrediction(self, path, prompts, out_dir, **options).run()

    def preprocess(
        self, job: Job, image_size: int | Sequence[int] | None = None, describe: bool = False
    ) -> Iterator[dict]:
        """The packed network inputs of one image: one, or one for each text of GenMask."""
        if job.image is None:
            return
        texts = job.prompts.texts if self.takes_texts else (None,)
        if describe:
            texts = job.descriptions = self._describe(job.image, texts)
        for text in texts:
            data = self.pipeline(dict(img=job.image, img_path=job.source.path, text=text, image_size=image_size))
            # The name is for messages; instances come of the colour map afterwards.
            data['data_samples'].set_metainfo(dict(picture_name=job.source.name, automatic=False))
            yield data

    def forward(
        self, batch: list[tuple[Job, dict]], automatic: bool | dict | None = None, prompting: dict | None = None
    ) -> None:
        """Runs one batch and adds each result to its job: logits of a text, or the colour map and its instances."""
        samples = self._predict([data for _, data in batch])
        for (job, _), sample in zip(batch, samples, strict=True):
            if self.takes_texts:
                job.outputs.append(sample.seg_logits.data[0].cpu())  # (H, W)
                continue
            colors, network_map = sample.pred_color_map.data, sample.pred_network_map.data
            check_finite(colors, 'colours', job.source.name)
            found = instances_of(self.model, colors, network_map, job.prompts, job.source.name, automatic, prompting)
            job.outputs.append((colors.cpu(), found))

    @torch.no_grad()
    def _predict(self, batch: list[dict]) -> list[SegDataSample]:
        with evaluation_autocast(self.cfg, device_of(self.model)):
            return self.model.test_step(self.collate_fn(batch))

    def _sample(self, job: Job) -> SegDataSample:
        return generated_sample(job, self.model.mask_head.threshold) if self.takes_texts else colored_sample(job)

    def visualize(
        self,
        job: Job,
        return_vis: bool = False,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | PathLike = '',
        no_save_vis: bool = False,
    ) -> np.ndarray | None:
        """Draws one image, RGB, shows and saves the picture as asked; None where it is not to be returned."""
        save = bool(out_dir) and not no_save_vis
        if not (return_vis or show or save):
            return None
        prediction = arrays_of(job.sample)
        texts = job.descriptions or job.prompts.texts or ()
        caption = f'{job.source.stem} · masks: {len(prediction["masks"])}'
        if len(texts) == 1:
            caption, texts = f'"{texts[0]}"', ()
        picture = draw_prediction(job.image, prediction, job.prompts, caption, texts)
        if save:
            save_picture(picture, Path(out_dir, 'vis', f'{job.source.stem}.png'), job.source.path)
        if show:
            show_picture(picture, job.source.stem, wait_time)
        return picture if return_vis else None

    def postprocess(
        self,
        job: Job,
        visualization: np.ndarray | None = None,
        return_datasamples: bool = False,
        out_dir: str | PathLike = '',
        no_save_pred: bool = False,
        run: str | None = None,
    ) -> dict | SegDataSample:
        """The prediction of one image as it is returned; written to ``out_dir`` as well."""
        prediction = arrays_of(job.sample)
        if out_dir and not no_save_pred:
            save_prediction(prediction, job, Path(out_dir, 'preds'), run)
        return job.sample if return_datasamples else prediction

    def _describe(self, image: np.ndarray, texts: Sequence[str]) -> list[str]:
        if self.description_writer is None:
            self.description_writer = build_description_writer(self.cfg, device_of(self.model), self.scope)
        return list(self.description_writer([image] * len(texts), list(texts)))

    def _init_pipeline(self, cfg: Config) -> NetworkPipeline:
        return NetworkPipeline(self.model, cfg, self.scope)

    def _check_generates(self, *others: Any) -> None:
        if any(is_set(option) for option in others):
            raise ValueError("task='generate' takes texts, but got inputs, prompts or options of task 'segment'")


def init_model(
    config: str | PathLike | Config,
    checkpoint: str | PathLike | None = None,
    device: str | torch.device | None = None,
    cfg_options: dict | None = None,
) -> nn.Module:
    """The model of a config with trained weights, in eval mode, as in mmseg's and mmdet's ``apis``."""
    cfg, weights = read_config(config)
    cfg.merge_from_dict(cfg_options or {})
    return build_model(cfg, chosen_weights(config, checkpoint, weights), device)


def inference_model(model: nn.Module, img: Any, **kwargs: Any) -> SegDataSample | list[SegDataSample]:
    """Predicts one image (a data sample) or several (a list of them) with a model of :func:`init_model`.

    Args:
        model: ``Gen2Seg`` or ``GenMask``.
        img: As ``inputs`` of :class:`GenSegInferencer`.
        **kwargs: As in a call of it: points, boxes, texts, batch_size, ...
    """
    kwargs = dict(progress_bar=False) | kwargs
    samples = GenSegInferencer(model)(img, return_datasamples=True, **kwargs)['predictions']
    return samples[0] if list_sources(img)[1] else samples
