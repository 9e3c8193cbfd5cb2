"""GenMask (arXiv 2603.23906): a text-to-image DiT that generates segmentation masks in one forward pass."""

from collections.abc import Sequence

import torch
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor

from genseg_mm.models.base import GenSegModel
from genseg_mm.models.prompt_encoders import PromptEmbeddings
from genseg_mm.models.seeded_noise import draw_noise, seeded_generator, training_generators
from genseg_mm.registry import MODELS


@MODELS.register_module()
class GenMask(GenSegModel):
    """Generates a black-and-white mask from image and text, trained jointly with text-to-image generation.

    A sample's task comes from its metainfo: 'mask' (referring segmentation: the image is a condition, the
    mask is generated) or 'image' (text-to-image: the image itself is generated from the text).

    Args:
        codec: Config of :class:`LatentCodec`.
        prompt_encoder: Config of a prompt encoder.
        backbone: Config of :class:`DiTBackbone`.
        mask_head: Config of :class:`GenerativeMaskHead`.
        image_prompt_drop_prob: Share of 'image' samples whose prompt is emptied at training, for
            classifier-free guidance.
        image_condition: False drops the input image's latents (the paper's ablation).
        seed: Seeds the noise. Training noise is drawn per sample from (run seed, iteration, position in the
            batch of all ranks), so it is neither lost at a resume nor changed by the number of ranks; test
            noise from (seed, ``sample_idx``), so a result does not depend on batch size, rank or order.
        data_preprocessor: Config; default :class:`GenSegDataPreprocessor`.

    Raises:
        ValueError: If the parts do not fit each other.
    """

    def __init__(
        self,
        codec: dict,
        prompt_encoder: dict,
        backbone: dict,
        mask_head: dict | None = None,
        image_prompt_drop_prob: float = 0.1,
        image_condition: bool = True,
        seed: int = 0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            data_preprocessor=data_preprocessor or dict(type='genseg_mm.GenSegDataPreprocessor'),
            init_cfg=init_cfg,
        )
        self.codec = MODELS.build(codec)
        self.prompt_encoder = MODELS.build(prompt_encoder)
        self.backbone = MODELS.build(backbone)
        self.mask_head = MODELS.build(mask_head or dict(type='genseg_mm.GenerativeMaskHead'))
        fixed_length = getattr(self.prompt_encoder, 'padding', 'max_length') == 'max_length'
        if self.backbone.family.needs_fixed_length_text and not fixed_length:
            raise ValueError(
                f"{type(self.backbone.family).__name__} has no text mask: expected padding='max_length' in the "
                f'prompt encoder, but got {self.prompt_encoder.padding!r}'
            )
        self.image_prompt_drop_prob = image_prompt_drop_prob
        self.image_condition, self.seed = image_condition, seed

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[BaseDataElement] | None = None,
        mode: str = 'tensor',
    ) -> dict[str, Tensor] | list[BaseDataElement] | Tensor:
        """MMEngine's three modes.

        Args:
            inputs: RGB in [-1, 1], (N, 3, H, W).
            data_samples: N samples; each needs ``text``, and at training ``gt_sem_seg`` if its task is 'mask'.
            mode: 'loss' -> dict of scalars; 'predict' -> the samples with ``pred_sem_seg`` and ``seg_logits``
                at original size; 'tensor' -> decoded images (N, 3, H, W).

        Raises:
            ValueError: If samples, texts or the mode are missing or wrong.
        """
        if data_samples is None:
            raise ValueError('GenMask needs data_samples: their text is the prompt')
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self._decoded(inputs, data_samples)
        raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', but got {mode!r}")

    def loss(self, inputs: Tensor, data_samples: list[BaseDataElement]) -> dict[str, Tensor]:
        """Velocity losses ``loss_mask`` and ``loss_image`` (see :meth:`GenerativeMaskHead.loss`)."""
        generators = training_generators(len(inputs))
        tasks = [sample.get('task', 'mask') for sample in data_samples]
        texts = _texts(data_samples)
        for index, (task, generator) in enumerate(zip(tasks, generators, strict=True)):
            drop = torch.rand(1, generator=generator).item() < self.image_prompt_drop_prob
            if task == 'image' and drop:
                texts[index] = ''
        is_mask = torch.tensor([task == 'mask' for task in tasks], device=inputs.device)
        image_latents = self.codec.encode(inputs)  # (N, C, h, w)
        data = image_latents.clone()  # an 'image' sample generates its image
        if is_mask.any():
            masks = torch.stack([_mask_target(sample) for sample in data_samples if _is_mask(sample)])
            masks = self.mask_head.masks_to_images(masks.to(inputs.device))
            if masks.shape[-2:] != inputs.shape[-2:]:
                raise ValueError(
                    f'training masks must have the size of the images, {tuple(inputs.shape[-2:])}, but got '
                    f'{tuple(masks.shape[-2:])}: load them before Resize in the training pipeline'
                )
            data[is_mask] = self.codec.encode(masks)
        prompt = self.prompt_encoder(texts, inputs)
        velocity_fn = self._velocity_fn(prompt, image_latents, is_mask)
        return self.mask_head.loss(velocity_fn, data, tasks, generators)

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> list[BaseDataElement]:
        """Masks at original size: ``pred_sem_seg`` (1, H, W) uint8 in {0, 1}, ``seg_logits`` (1, H, W) float32."""
        decoded = self._decoded(inputs, data_samples)
        for image, sample in zip(decoded, data_samples, strict=True):
            size = tuple(sample.get('ori_shape', image.shape[-2:]))[:2]
            valid = sample.get('img_shape', image.shape[-2:])
            logits = self.mask_head.decoded_to_logits(image[:, : valid[0], : valid[1]], size)
            sample.set_data(
                dict(
                    seg_logits=PixelData(data=logits),
                    pred_sem_seg=PixelData(data=(logits > 0).to(torch.uint8)),
                )
            )
        return data_samples

    def _decoded(self, inputs: Tensor, data_samples: list[BaseDataElement]) -> Tensor:
        """Generated mask images, (N, 3, H, W)."""
        image_latents = self.codec.encode(inputs)
        prompt = self.prompt_encoder(_texts(data_samples), inputs)
        has_image = torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)
        generators = [
            seeded_generator(self.seed, int(sample.get('sample_idx', index)))
            for index, sample in enumerate(data_samples)
        ]
        noise = draw_noise(image_latents.shape[1:], generators).to(image_latents)
        velocity_fn = self._velocity_fn(prompt, image_latents, has_image)
        return self.codec.decode(self.mask_head.predict(velocity_fn, noise))

    def _velocity_fn(self, prompt: PromptEmbeddings, image_latents: Tensor, has_image: Tensor):
        has_image = has_image & self.image_condition
        return lambda noisy, sigma: self.backbone(noisy, sigma, prompt, image_latents, has_image)


def _texts(data_samples: Sequence[BaseDataElement]) -> list[str]:
    texts = [sample.get('text') for sample in data_samples]
    for sample, text in zip(data_samples, texts, strict=True):
        if not isinstance(text, str):
            raise ValueError(
                f"sample {sample.get('img_path', '?')!r}: expected a string in metainfo 'text', but got {text!r}; "
                "keep 'text' in PackGenSegInputs' meta_keys"
            )
    return texts


def _is_mask(sample: BaseDataElement) -> bool:
    return sample.get('task', 'mask') == 'mask'


def _mask_target(sample: BaseDataElement) -> Tensor:
    if 'gt_sem_seg' not in sample:
        raise ValueError(
            f"sample {sample.get('img_path', '?')!r} of task 'mask' has no gt_sem_seg: put LoadReferringMask into the "
            'training pipeline'
        )
    return sample.gt_sem_seg.data[0]
