"""GenMask (arXiv 2603.23906): a text-to-image DiT that generates segmentation masks in one forward pass."""

from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from mmengine.structures import BaseDataElement, PixelData
from torch import Generator, Tensor, nn

from genseg_mm.files import check_texts
from genseg_mm.finite import check_finite, picture_of
from genseg_mm.functional.flow_matching import euler_solve
from genseg_mm.models.base import GenSegModel, draw_noise, seeded_generator, semantic_map, training_generators
from genseg_mm.models.cached_inputs import parts_never_asked, read_cached, read_cached_masks
from genseg_mm.models.pretrained_parts import FrozenPartsMixin
from genseg_mm.models.prompt_encoders import PromptEmbeddings
from genseg_mm.network_sizes import NATIVE, check_network_size, checked_processing_size, resize_to
from genseg_mm.registry import MODELS

STARTS = ('noise', 'image')
GENERATION_SETTINGS = ('image_size', 'num_steps', 'guidance_scale', 'negative_text', 'shift')


@MODELS.register_module()
class GenMask(GenSegModel):
    """Generates a black-and-white mask from image and text, trained jointly with text-to-image generation.

    A sample's task comes from its metainfo: 'mask' (referring segmentation: the image is a condition, the
    mask is generated) or 'image' (text-to-image: the image itself is generated from the text).

    Args:
        codec: Config of :class:`LatentCodec`.
        prompt_encoder: Config of a prompt encoder.
        backbone: Config of :class:`DiTBackbone`.
        mask_head: Config of :class:`GenerativeMaskHead`, or of an ablation in its place.
        image_prompt_drop_prob: Share of 'image' samples whose prompt is emptied at training, for
            classifier-free guidance.
        image_condition: False drops the input image's latents as a condition (the paper's ablation).
        start: Where the path of masks starts (sigma 1): ``'noise'`` (the paper), or ``'image'``, the latents of the
            input image, so that the velocity is image - mask and a prediction has no random number in it (FlowRVS,
            arXiv 2510.06139, with ``image_condition``; RLFSeg, arXiv 2605.04590, without). Text-to-image starts from
            noise.
        seed: Seeds the noise. Training noise is drawn per sample from (run seed, iteration, position in the
            batch of all ranks), so it is neither lost at a resume nor changed by the number of ranks; test
            noise from (seed, ``sample_idx``), so a result does not depend on batch size, rank or order.
        generation: Settings of :meth:`generate` for samples of task 'image' in prediction, and defaults of the
            inferencer, e.g. ``dict(num_steps=28, guidance_scale=5.0, image_size=(512, 512))``.
        processing_size: Size that pictures are brought to where a test pipeline has no Resize: the longer side,
            (height, width), or 0 (default), the nearest multiples of the stride to their own.
        data_preprocessor: Config; default :class:`GenSegDataPreprocessor`.
        pretrained: None, as ``mmseg.apis.init_model`` sets it; so ``train_cfg``.

    Raises:
        ValueError: If the parts do not fit each other.
    """

    takes_texts = True

    @classmethod
    def benchmark_tasks(cls, config: Mapping) -> tuple[str, ...]:
        """What a benchmark can measure of a model of this config."""
        return ('referring',)

    def __init__(
        self,
        codec: dict,
        prompt_encoder: dict,
        backbone: dict,
        mask_head: dict | None = None,
        image_prompt_drop_prob: float = 0.1,
        image_condition: bool = True,
        start: str = 'noise',
        seed: int = 0,
        generation: dict | None = None,
        processing_size: int | tuple[int, int] | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
        pretrained: None = None,
        train_cfg: None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg, pretrained, train_cfg)
        self.codec = MODELS.build(codec)
        self.prompt_encoder = MODELS.build(prompt_encoder)
        self.backbone = MODELS.build(backbone)
        self.mask_head = MODELS.build(mask_head or dict(type='genseg_mm.GenerativeMaskHead'))
        self.mask_head.attach_codec(self.codec)
        fixed_length = getattr(self.prompt_encoder, 'padding', 'max_length') == 'max_length'
        if self.backbone.family.needs_fixed_length_text and not fixed_length:
            raise ValueError(
                f"{type(self.backbone.family).__name__} has no text mask: expected padding='max_length' in the "
                f'prompt encoder, but got {self.prompt_encoder.padding!r}'
            )
        width = getattr(self.prompt_encoder, 'embed_dims', self.backbone.prompt_dims)
        if width != self.backbone.prompt_dims:
            raise ValueError(
                f'the prompt encoder gives states of width {width}, but the transformer takes '
                f'{self.backbone.prompt_dims}: set prompt_dims={width} in the backbone for a fresh text projection'
            )
        self.image_prompt_drop_prob = image_prompt_drop_prob
        if start not in STARTS:
            raise ValueError(f'start must be one of {", ".join(STARTS)}, but got {start!r}')
        self.image_condition, self.start, self.seed = image_condition, start, seed
        self.generation = checked_settings(generation)
        self.processing_size = checked_processing_size(processing_size)

    def leave_encoders_on_host(self, kinds: Collection[str]) -> tuple[str, ...]:
        """Has frozen encoders wait in the memory of the host that a training never runs; its runner calls it.

        They are on the device of the others while they are asked for, as in validation. DDP, which takes parameters of
        one kind of device, leaves them out: what a cache was made with is the same on all ranks, by its fingerprint.

        Args:
            kinds: Of 'image', 'mask' and 'prompt': those whose encodings all come from a cache.

        Returns:
            Their names.
        """
        names = parts_never_asked(kinds)
        owners = [own for name in names for own in getattr(self, name).modules() if isinstance(own, FrozenPartsMixin)]
        waiting = {id(part) for owner in owners for part in owner.wait_on_host()}
        prefixes = tuple(f'{name}.' for name, own in self.named_modules() if id(own) in waiting)
        tensors = (*self.named_parameters(), *self.named_buffers())
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in tensors if name.startswith(prefixes)]
        return names if waiting else ()

    def network_resize(self) -> dict[str, Any]:
        """How pictures are brought to the size that the network works at, as ``NetworkResize`` takes it."""
        strides = [self.codec.downsample * side for side in self.backbone.patch_size]
        return resize_to(NATIVE if self.processing_size is None else self.processing_size, strides)

    def forward(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None = None, mode: str = 'tensor'
    ) -> dict[str, Tensor] | list[BaseDataElement] | Tensor:
        """MMEngine's three modes.

        Args:
            inputs: RGB in [-1, 1], (N, 3, H, W).
            data_samples: N samples; each needs ``text``, and at training ``gt_sem_seg`` if its task is 'mask'.
            mode: 'loss' -> dict of scalars; 'predict' -> the samples with ``pred_sem_seg`` and ``seg_logits``
                at original size, or ``pred_img`` where the task is 'image'; 'tensor' -> decoded mask images
                (N, 3, H, W).

        Raises:
            ValueError: If samples, texts or the mode are missing or wrong.
        """
        if data_samples is None:
            raise ValueError('GenMask needs data_samples: their text is the prompt, but got None')
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.codec.decode(self._generated(inputs, data_samples))
        raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', but got {mode!r}")

    def loss(self, inputs: Tensor, data_samples: list[BaseDataElement]) -> dict[str, Tensor]:
        """Losses ``loss_mask`` and ``loss_image`` (see :meth:`GenerativeMaskHead.loss`), and their numbers of samples.

        The numbers are ``num_samples_mask`` and ``num_samples_image``, for the log.
        """
        generators = training_generators(len(inputs))
        tasks = [_task(sample) for sample in data_samples]
        texts = self._dropped(_texts(data_samples), tasks, generators)
        is_mask = torch.tensor([task == 'mask' for task in tasks], device=inputs.device)  # (N,)

        image_latents, prompt = self._encode(inputs, data_samples, texts, is_mask)  # (N, C, h, w), (N, L, D)
        data, masks = self._data(inputs, data_samples, is_mask, image_latents)  # (N, C, h, w), (M, H, W)
        images = image_latents if self.start == 'image' else None
        noisy = self.mask_head.add_noise(data, tasks, generators, images)  # (N, C, h, w) at sigma (N,)
        has_image = is_mask & self.image_condition  # (N,)
        velocity = self.backbone(noisy.latents, noisy.sigma, prompt, image_latents, has_image)  # (N, C, h, w)
        losses = self.mask_head.loss(velocity, noisy, is_mask, masks)

        counts = is_mask.sum().float(), (~is_mask).sum().float()
        return dict(losses, num_samples_mask=counts[0], num_samples_image=counts[1])

    def _dropped(self, texts: list[str], tasks: Sequence[str], generators: Sequence[Generator]) -> list[str]:
        """The texts with some of the 'image' samples' emptied, for classifier-free guidance."""
        drops = [torch.rand(1, generator=own).item() < self.image_prompt_drop_prob for own in generators]
        return ['' if task == 'image' and drop else text for text, task, drop in zip(texts, tasks, drops, strict=True)]

    def _encode(
        self, inputs: Tensor, data_samples: list[BaseDataElement], texts: list[str], has_image: Tensor
    ) -> tuple[Tensor, PromptEmbeddings]:
        """Latents of the pictures, (N, C, h, w), and prompts, which may see the pictures of ``has_image`` (N,)."""
        latents, prompt = read_cached(self, inputs, data_samples, texts)
        if latents is None:
            latents = self.codec.encode(inputs)
        if prompt is None:
            sees = getattr(self.prompt_encoder, 'looks_at_images', False)
            prompt = self.prompt_encoder(texts, inputs, **(dict(has_image=has_image) if sees else {}))
        return latents, prompt

    def _data(
        self, inputs: Tensor, data_samples: list[BaseDataElement], is_mask: Tensor, image_latents: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """What is generated, as clean latents: the mask or, task 'image', the picture; and the masks, if not cached."""
        data, masks = image_latents.clone(), None  # (N, C, h, w)
        if masked := [sample for sample in data_samples if _is_mask(sample)]:
            mask_latents = read_cached_masks(self, masked, image_latents)
            if mask_latents is None:
                masks = _mask_targets(masked, inputs)  # (M, H, W)
                checked = [bool(sample.get('mask_values_checked')) for sample in masked]
                mask_latents = self.codec.encode(self.mask_head.masks_to_images(masks, checked))  # (M, C, h, w)
            data[is_mask] = mask_latents
        return data, masks

    @torch.no_grad()
    def generate(
        self,
        texts: Sequence[str],
        image_size: tuple[int, int],
        num_steps: int = 28,
        guidance_scale: float = 5.0,
        seed: int = 0,
        negative_text: str = '',
        shift: float = 1.0,
        generators: Sequence[Generator] | None = None,
    ) -> Tensor:
        """Pictures of texts: Euler steps from pure noise with classifier-free guidance (never used for masks).

        The paper trains for guidance but states neither steps nor scale: the defaults are ours.

        Args:
            texts: N prompts.
            image_size: Height and width in pixels, multiples of the codec's factor times the patch.
            num_steps: Euler steps.
            guidance_scale: See :meth:`DiTFamily.guided_velocity`; 1 is no guidance, and halves the cost.
            seed: The noise of text i is that of (seed, i).
            negative_text: Prompt to guide away from; the empty one is what training dropped prompts to.
            shift: Of the noise levels, see :func:`sigma_schedule`.
            generators: One CPU generator per text for its noise, in place of the seed.

        Returns:
            RGB in [-1, 1], (N, 3, H, W). A picture depends on its text and noise, not on the others of its batch.

        Raises:
            ValueError: If an argument is out of range.
        """
        texts = checked_texts(texts)
        size = latent_size(image_size, self.codec.downsample, self.backbone.patch_size)
        check_guidance(guidance_scale)
        if generators is None:
            generators = [seeded_generator(seed, index) for index in range(len(texts))]
        if len(generators) != len(texts):
            raise ValueError(f'generators must be one per text, {len(texts)}, but got {len(generators)}')
        prompt = self.prompt_encoder(texts, None)
        if guidance_scale != 1:
            negative = negative_prompt(self.prompt_encoder, negative_text)
            prompt = prompt.and_then(negative.select(torch.zeros(len(texts), dtype=torch.long)))
        noise = draw_noise((self.backbone.latent_channels, *size), generators)
        velocity_fn = guided_velocity_fn(self.backbone, prompt, guidance_scale)
        latents = euler_solve(velocity_fn, noise.to(prompt.states.device), num_steps, shift)
        for text, own in zip(texts, latents, strict=True):
            check_finite(own, 'latents', f'picture of {text!r}')
        return self.codec.decode(latents).clamp(-1, 1)

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: list[BaseDataElement]) -> list[BaseDataElement]:
        """Predicts each sample by its task.

        'mask': ``pred_sem_seg`` (1, H, W) uint8 in {0, 1} and ``seg_logits`` (1, H, W) float32 at original size.
        'image': ``pred_img`` (3, H, W) uint8 RGB, generated from the text with the settings ``generation``, at the size
        that the network sees; the sample's own picture gives that size and nothing else.
        """
        is_mask = torch.tensor([_is_mask(sample) for sample in data_samples], device=inputs.device)
        pictured = [sample for sample in data_samples if not _is_mask(sample)]
        if pictured:
            self._predict_pictures(tuple(inputs.shape[-2:]), pictured)
        masked = [sample for sample in data_samples if _is_mask(sample)]
        if masked:
            self._predict_masks(inputs[is_mask], masked)
        return data_samples

    def _predict_masks(self, inputs: Tensor, data_samples: list[BaseDataElement]) -> None:
        latents = self._generated(inputs, data_samples)
        for place, (own, sample) in enumerate(zip(latents, data_samples, strict=True)):
            check_finite(own, 'latents', picture_of(sample, place))  # before anything is cut off
        pictures = self.mask_head.latents_to_grey(latents)  # (N, 1, H, W)
        for grey, sample in zip(pictures, data_samples, strict=True):
            size = tuple(sample.get('ori_shape', grey.shape[-2:]))[:2]
            valid = sample.get('img_shape', grey.shape[-2:])
            logits = self.mask_head.grey_to_logits(grey[:, : valid[0], : valid[1]], size)
            check_finite(logits, 'logits', picture_of(sample))
            sample.set_data(dict(seg_logits=PixelData(data=logits), pred_sem_seg=semantic_map(logits > 0)))
            if 'gt_sem_seg' in sample:
                sample.gt_sem_seg = semantic_map(sample.gt_sem_seg.data)

    def _predict_pictures(self, size: tuple[int, int], data_samples: list[BaseDataElement]) -> None:
        if 0 in size:  # cached latents in place of pixels
            height, width = data_samples[0].image_latents.shape[-2:]
            size = height * self.codec.downsample, width * self.codec.downsample
        settings = {**self.generation, 'image_size': size}
        pictures = self.generate(_texts(data_samples), generators=self._test_generators(data_samples), **settings)
        for picture, sample in zip(pictures_to_bytes(pictures), data_samples, strict=True):
            height, width = tuple(sample.get('img_shape', size))[:2]
            sample.set_data(dict(pred_img=PixelData(data=picture[:, :height, :width])))

    def _test_generators(self, data_samples: list[BaseDataElement]) -> list[Generator]:
        return [
            seeded_generator(self.seed, int(sample.get('sample_idx', index)))
            for index, sample in enumerate(data_samples)
        ]

    def _generated(self, inputs: Tensor, data_samples: list[BaseDataElement]) -> Tensor:
        """Generated latents of masks, (N, C, h, w)."""
        if not all(map(_is_mask, data_samples)):
            raise ValueError("expected samples of task 'mask', but got 'image': use mode='predict', or generate(texts)")
        has_image = torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)
        texts = _texts(data_samples)
        image_latents, prompt = self._encode(inputs, data_samples, texts, has_image)  # (N, C, h, w), (N, L, D)
        start = image_latents
        if self.start == 'noise':
            start = draw_noise(image_latents.shape[1:], self._test_generators(data_samples)).to(image_latents)
        has_image = has_image & self.image_condition

        def velocity_fn(noisy: Tensor, sigma: Tensor) -> Tensor:
            return self.backbone(noisy, sigma, prompt, image_latents, has_image)

        return self.mask_head.predict(velocity_fn, start)  # (N, C, h, w)


def _texts(data_samples: Sequence[BaseDataElement]) -> list[str]:
    texts = [sample.get('text') for sample in data_samples]
    for sample, text in zip(data_samples, texts, strict=True):
        if not isinstance(text, str):
            raise ValueError(
                f"sample {sample.get('img_path', '?')!r}: expected a string in metainfo 'text', but got {text!r}; "
                "keep 'text' in PackGenSegInputs' meta_keys"
            )
    return texts


def _task(sample: BaseDataElement) -> str:
    task = sample.get('task', 'mask')
    if task not in ('mask', 'image'):
        raise ValueError(f"sample {sample.get('img_path', '?')!r}: task must be 'mask' or 'image', but got {task!r}")
    return task


def _is_mask(sample: BaseDataElement) -> bool:
    return _task(sample) == 'mask'


def _mask_targets(samples: Sequence[BaseDataElement], inputs: Tensor) -> Tensor:
    """Masks of samples of task 'mask' at the size of the images, (M, H, W)."""
    for sample in samples:
        if 'gt_sem_seg' not in sample:
            raise ValueError(
                f"sample {sample.get('img_path', '?')!r} of task 'mask' has no gt_sem_seg: put LoadReferringMask into "
                'the training pipeline'
            )
    masks = torch.stack([sample.gt_sem_seg.data[0] for sample in samples]).to(inputs.device)
    if masks.shape[-2:] != inputs.shape[-2:]:
        raise ValueError(
            f'training masks must have the size of the images, {tuple(inputs.shape[-2:])}, but got '
            f'{tuple(masks.shape[-2:])}: load them before Resize in the training pipeline'
        )
    return masks


# Parts of ``GenMask.generate``


def negative_prompt(encoder: nn.Module, text: str) -> PromptEmbeddings:
    """One prompt to guide away from; an encoder with a template of its own for these has ``negative(texts)``."""
    return encoder.negative([text]) if hasattr(encoder, 'negative') else encoder([text], None)


def guided_velocity_fn(
    backbone: nn.Module, prompt: PromptEmbeddings, guidance_scale: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Velocity of pictures under guidance, one forward pass per call.

    Args:
        backbone: A ``DiTBackbone``.
        prompt: Of N texts; with guidance 2 N, their negative prompts after them.
        guidance_scale: See :meth:`DiTFamily.guided_velocity`; at least 0. 1 is no guidance, and takes N prompts.

    Returns:
        ``(noisy (N, C, h, w), sigma (N,)) -> velocity (N, C, h, w)``.

    Raises:
        ValueError: If guidance_scale is negative or not finite.
    """
    check_guidance(guidance_scale)

    def velocity_fn(noisy: Tensor, sigma: Tensor) -> Tensor:
        if guidance_scale == 1:
            return backbone(noisy, sigma, prompt)
        both = backbone(noisy.repeat(2, 1, 1, 1), sigma.repeat(2), prompt)  # (2N, C, h, w)
        return backbone.family.guided_velocity(*both.chunk(2), guidance_scale)

    return velocity_fn


def check_guidance(guidance_scale: float) -> None:
    """Raises ValueError if the scale is no number, negative or not finite."""
    if not isinstance(guidance_scale, Real) or not 0 <= guidance_scale < float('inf'):
        raise ValueError(f'guidance_scale must be a number of at least 0, but got {guidance_scale!r}')


def latent_size(image_size: Sequence[int], downsample: int, patch_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the latents of a picture.

    Args:
        image_size: Height and width in pixels.
        downsample: Pixels per latent cell along one side.
        patch_size: Latent cells per token.

    Raises:
        ValueError: If a side is no multiple of a token's pixels, or the size beyond every picture's.
    """
    factors = [downsample * side for side in patch_size]
    sides = tuple(image_size) if isinstance(image_size, Sequence) else ()
    if len(sides) != 2 or any(
        not isinstance(side, int) or side < 1 or side % factor for side, factor in zip(sides, factors, strict=True)
    ):
        raise ValueError(
            f'image_size must be (height, width), multiples of {factors[0]} and {factors[1]} pixels for this model, '
            f'but got {image_size!r}'
        )
    check_network_size(*sides)
    return tuple(side // downsample for side in sides)


def checked_texts(texts: Sequence[str]) -> list[str]:
    """Texts as a list; ValueError if they are no list of at least one string."""
    is_list = isinstance(texts, (list, tuple)) and len(texts) > 0
    if not is_list or not all(isinstance(text, str) for text in texts):
        raise ValueError(f'generation needs texts, a list of at least one string, but got {texts!r}')
    check_texts(texts, 'generation')
    return list(texts)


def checked_settings(settings: dict | None) -> dict:
    """Settings of ``GenMask.generate`` in a config; ValueError if there are others among them."""
    settings = dict(settings or {})
    unknown = set(settings) - set(GENERATION_SETTINGS)
    if unknown:
        raise ValueError(f'generation knows {GENERATION_SETTINGS}, but got {sorted(unknown)}')
    return settings


def pictures_to_bytes(pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1] as uint8 in [0, 255], rounded, same shape."""
    return ((pictures + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
