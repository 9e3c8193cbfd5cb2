"""Two-stage reasoning segmentation: a vision-language model writes what GenMask then segments (GenMask, inference)."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor

from genseg_mm.checkpoint import weights_digest
from genseg_mm.files import check_texts
from genseg_mm.models.pretrained_parts import FrozenPartsMixin, freeze, is_pretrained_config
from genseg_mm.models.prompt_encoders.qwen_vl import QwenVLChat, QwenVLImages, build_qwen_vl
from genseg_mm.registry import MODELS

TEMPLATE = 'Which object in the picture is meant by "{}"? Describe it in one short phrase.'


@MODELS.register_module()
class DescriptionWriter(FrozenPartsMixin, BaseModule):
    """Qwen2.5-VL or Qwen3-VL that turns (picture, question) into a refined description, such as 'the man in red'.

    Greedy by default, so the same picture and question always give the same description, alone or in a batch (up to
    rounding of the arithmetic, which batches change in half precision).

    Args:
        model: Config of the model, e.g. ``dict(type='transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained',
            pretrained_model_name_or_path=..., dtype='bfloat16')``, or ``Qwen3VLForConditionalGeneration``.
        processor: Folder / hub id with the tokenizer and ``preprocessor_config.json``; for released models that of the
            model.
        template: The question, with one ``{}`` for the text. The paper does not give its own.
        system_prompt: System message. None leaves it to the model's chat template.
        max_new_tokens: Longest answer.
        generation: More settings of ``transformers.GenerationConfig``, e.g. ``dict(num_beams=4)``; those that come with
            a released model (it samples) are not used.
        batch_size: Most pictures that go through the model at once.
        min_pixels: Smaller pictures are enlarged to this area. Default: the image processor's.
        max_pixels: Larger pictures are shrunk to this area. Default: the image processor's.
        tokenizer_kwargs: Of the tokenizer's ``from_pretrained``, e.g. ``dict(subfolder='tokenizer')``.
        image_processor_kwargs: Of the image processor's, e.g. ``dict(subfolder='processor')``.

    Raises:
        ValueError: If an argument is wrong, or model, tokenizer and image processor do not belong together.
    """

    frozen_parts = ('model',)

    def __init__(
        self,
        model: dict,
        processor: str,
        template: str = TEMPLATE,
        system_prompt: str | None = None,
        max_new_tokens: int = 32,
        generation: dict | None = None,
        batch_size: int = 8,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        tokenizer_kwargs: dict | None = None,
        image_processor_kwargs: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if template.count('{}') != 1:
            raise ValueError(f"template must hold '{{}}' exactly once, but got {template!r}")
        for name, value in (('max_new_tokens', max_new_tokens), ('batch_size', batch_size)):
            if value < 1:
                raise ValueError(f'{name} must be at least 1, but got {value}')
        has_source = 'type' in model and is_pretrained_config(model)
        self.model = freeze(build_qwen_vl(model), has_source)
        if not hasattr(self.model, 'lm_head'):
            raise ValueError(
                'expected a model that generates text (...ForConditionalGeneration), but got a '
                f'{type(self.model).__name__}'
            )
        config = self.model.config
        self.chat = QwenVLChat(processor, config, system_prompt, **(tokenizer_kwargs or {}))
        self.images = QwenVLImages(
            processor, config.vision_config, min_pixels, max_pixels, **(image_processor_kwargs or {})
        )
        self.template, self.system_prompt = template, system_prompt
        self.batch_size, self.num_empty = batch_size, 0
        self.generation = dict(max_new_tokens=max_new_tokens, do_sample=False, **(generation or {}))
        self._set_generation()

    def _set_generation(self) -> None:
        """Replaces the model's own generation settings but for the tokens that end an answer."""
        from transformers import GenerationConfig

        released = self.model.generation_config
        ends = released.eos_token_id if released is not None else None
        self.model.generation_config = GenerationConfig(
            eos_token_id=self.chat.tokenizer.eos_token_id if ends is None else ends,
            pad_token_id=self.chat.padding,
            **self.generation,
        )

    def init_weights(self) -> None:
        """Keeps the weights that transformers gave: its models have an ``init_weights`` of their own."""
        self._is_init = True

    def settings(self) -> dict:
        """What the descriptions depend on: settings and a digest of all weights, as plain JSON values."""
        bounds = [self.images.min_pixels, self.images.max_pixels]
        return dict(
            model=type(self.model).__name__,
            weights=weights_digest(self.model),
            template=self.template,
            system_prompt=self.system_prompt,
            generation=self.generation,
            pixels=bounds,
        )

    @torch.no_grad()
    def forward(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> list[str]:
        """Writes descriptions.

        Args:
            images: N pictures, (H, W, 3) uint8 BGR, of any size.
            texts: N questions or instructions.

        Returns:
            N descriptions in one line, without quotes around them and full stop. Where the model answers nothing, the
            text itself, with a warning.

        Raises:
            ValueError: If the numbers of pictures and texts differ, a picture is of another form, or a text holds
                half of a character.
        """
        check_texts(texts, 'questions')
        if len(images) != len(texts):
            raise ValueError(f'expected one picture per text, but got {len(images)} pictures and {len(texts)} texts')
        descriptions: list[str] = []
        for start in range(0, len(texts), self.batch_size):
            part = slice(start, start + self.batch_size)
            descriptions += self._write(images[part], texts[part])
        return descriptions

    def _write(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> list[str]:
        device = next(self.model.parameters()).device
        shown = [self.images(_to_tensor(image).to(device)) for image in images]
        sequences = []
        for text, (_, grid) in zip(texts, shown, strict=True):
            tokens = self.chat.image(int(grid[0].prod()) // self.images.merge_size**2)
            words = self.chat.words(self.template.format(text.strip()))
            sequences.append(self.chat.prefix + tokens + words + self.chat.suffix)
        batch = self.chat.batch(sequences, side='left')
        output = self.model.generate(
            **{key: value.to(device) for key, value in batch._asdict().items()},
            pixel_values=torch.cat([patches for patches, _ in shown]),
            image_grid_thw=torch.cat([grid for _, grid in shown]).to(device),
        )
        answers = self.chat.tokenizer.batch_decode(output[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
        return [_stripped(answer) or self._empty(text) for answer, text in zip(answers, texts, strict=True)]

    def _empty(self, text: str) -> str:
        self.num_empty += 1
        print_log(
            f'no description of {text!r}: the text itself is used ({self.num_empty} so far in this process)',
            'current',
            logging.WARNING,
        )
        return text


def _stripped(answer: str) -> str:
    return ' '.join(answer.split()).strip(' "\'').rstrip('.').strip(' "\'')


def _to_tensor(image: np.ndarray) -> Tensor:
    """BGR uint8 (H, W, 3) -> RGB in [-1, 1], (1, 3, H, W)."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f'expected a picture (H, W, 3) of uint8 in BGR, but got {image.shape} of {image.dtype}')
    rgb = torch.from_numpy(np.ascontiguousarray(image[..., ::-1]))
    return rgb.permute(2, 0, 1)[None].float() / 127.5 - 1
