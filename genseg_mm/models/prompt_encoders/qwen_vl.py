"""Qwen-VL as prompt encoder: (image, instruction) -> hidden states of its language model."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from inspect import signature
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genseg_mm.files import check_texts
from genseg_mm.models.picture_memory import PictureMemory, tower_sees_once
from genseg_mm.models.pretrained_parts import build_part
from genseg_mm.models.prompt_encoders.prompt_encoder import PromptEmbeddings, PromptEncoder, keep_layers, load_tokenizer
from genseg_mm.registry import MODELS
from genseg_mm.sharded_tensors import local_of

SYSTEM_PROMPT = (
    'Describe what the text refers to in the image: its color, shape, size, texture, position and '
    'its relations to other objects.'
)
SYSTEM_PROMPTS = MappingProxyType(dict(mask=SYSTEM_PROMPT, image=None))  # by task
# Names of system messages that released DiTs were trained with -> diffusers' pipeline that has the message.
PIPELINES = MappingProxyType(dict(qwen_image='QwenImagePipeline', qwen_image_edit='QwenImageEditPlusPipeline'))


@MODELS.register_module()
class QwenVLPromptEncoder(PromptEncoder):
    """Qwen2.5-VL or Qwen3-VL, which encodes image and instruction (GenMask's prompt encoder).

    Image and words are the user's message in the model's chat template. The hidden states of the language model are the
    embeddings; those of the template's prefix (system message and header) are dropped, as Qwen-Image does. The image
    stands before the words, so the words' states have seen it. The language model's head is never run and not kept.

    Args:
        encoder: Config of the model. Pretrained:
            ``dict(type='transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained',
            pretrained_model_name_or_path=..., dtype='bfloat16')`` (``Qwen3VLForConditionalGeneration`` likewise). From
            scratch: keyword arguments of the transformers config, with ``model_type`` 'qwen2_5_vl' or 'qwen3_vl'.
        processor: Folder / hub id with the tokenizer and ``preprocessor_config.json``; for released models that of the
            model.
        tokenizer_kwargs: Of the tokenizer's ``from_pretrained``, e.g. ``dict(subfolder='tokenizer')``.
        image_processor_kwargs: Of the image processor's, e.g. ``dict(subfolder='processor')``.
        hidden_layer: Which hidden state: -1 the last, after the final norm (the paper does not say; Qwen-Image's
            choice); k > 0 the output of layer k, counted from 1; -2 that of the last layer but one. Layers
            after it are dropped.
        system_prompt: System message, or one per task: ``dict(mask=..., image=...)``; what is left out is the default.
            What selects it is whether a sample shows its picture: one that does is of task 'mask', words alone
            (captions, prompts to generate from, everything with ``looks_at_images=False``) are of task 'image'. None
            leaves it to the template, as captions do by default: they refer to nothing in an image. 'qwen_image' and
            'qwen_image_edit' are the messages that Qwen-Image and Qwen-Image-Edit (arXiv 2508.02324) were trained
            with, as the pipelines of the installed diffusers have them.
        image_text: Words before the image, which are kept or not as it is: Qwen-Image-Edit-2509 and later read
            'Picture 1: '.
        max_length: Most tokens that are kept, image and the template's end included; longer instructions are cut.
        padding: 'longest' pads to the longest prompt of the batch, 'max_length' to a fixed length, which families
            without a text mask (Wan) need.
        keep: 'all' tokens after the prefix, or 'text': without the image's.
        looks_at_images: False encodes the words alone.
        min_pixels: Smaller images are enlarged to this area. Default: the image processor's.
        max_pixels: Larger images are shrunk to this area, which bounds the image's tokens. Default: the processor's.
        trainable: Trains the model jointly. Default: frozen if pretrained, trained if built from scratch.

    Raises:
        ValueError: If an argument is wrong, or model, tokenizer and image processor do not belong together.
    """

    def __init__(
        self,
        encoder: dict,
        processor: str,
        hidden_layer: int = -1,
        system_prompt: str | Mapping[str, str | None] | None = SYSTEM_PROMPTS,
        image_text: str = '',
        max_length: int = 512,
        padding: str = 'longest',
        keep: str = 'all',
        looks_at_images: bool = True,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        trainable: bool | None = None,
        tokenizer_kwargs: dict | None = None,
        image_processor_kwargs: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if keep not in ('all', 'text'):
            raise ValueError(f"keep must be 'all' or 'text', but got {keep!r}")
        super().__init__(encoder, None, max_length, padding, trainable, init_cfg=init_cfg)
        self.keep, self.looks_at_images = keep, looks_at_images
        self.hidden_layer = keep_layers(self.encoder.language_model, hidden_layer)[0]
        config = self.encoder.config
        prompts = _by_task(system_prompt)
        self.chat = QwenVLChat(processor, config, prompts['mask'], **(tokenizer_kwargs or {}))
        self.text_chat = self.chat.with_system_prompt(prompts['image'])  # of prompts without a picture
        self.image_text = self.chat.words(image_text)
        self.images = None
        if looks_at_images:
            self.images = QwenVLImages(
                processor, config.vision_config, min_pixels, max_pixels, **(image_processor_kwargs or {})
            )
        else:
            self.encoder.visual.requires_grad_(False)
        self._memory = PictureMemory()

    @classmethod
    def build(cls, encoder: dict) -> nn.Module:
        """The model without its language model's head."""
        model = build_qwen_vl(encoder)
        return model.model if hasattr(model, 'lm_head') else model

    def forward(
        self, texts: Sequence[str], images: Tensor | None = None, has_image: Tensor | None = None
    ) -> PromptEmbeddings:
        """Encodes prompts.

        Args:
            texts: N instructions.
            images: RGB in [-1, 1], (N, 3, H, W); None if no sample has one.
            has_image: Which samples show their image, (N,) bool; the others are encoded from their words
                alone. Default: all, if ``images`` is given.

        Returns:
            Embeddings (N, L, D), zero at padding, and their mask (N, L).

        Raises:
            ValueError: If an image's tokens do not fit into ``max_length``, the numbers of texts and images differ, or
                a text holds half of a character.
        """
        check_texts(texts, 'prompts')
        shown = self._shown(texts, images, has_image)
        self.fetch_frozen_parts()
        device = self.device
        inputs, num_image_tokens = dict(use_cache=False), 0
        if any(shown):
            chosen = images[torch.tensor(shown, device=images.device)]
            patches, grid = self.images(chosen.to(device))
            num_image_tokens = int(grid[0].prod()) // self.images.merge_size**2
            inputs.update(pixel_values=patches, image_grid_thw=grid)
        sequences, kept = zip(
            *(
                self._sequence(text, num_image_tokens if own else None, images)
                for text, own in zip(texts, shown, strict=True)
            ),
            strict=True,
        )
        batch = self.chat.batch(sequences)
        # From the tensors on the CPU: it asks for their values one by one.
        positions, _ = self.encoder.get_rope_index(
            batch.input_ids,
            batch.mm_token_type_ids,
            image_grid_thw=inputs.get('image_grid_thw'),
            attention_mask=batch.attention_mask,
        )
        inputs.update(position_ids=positions, **batch._asdict())
        inputs = {key: _to(value, device) for key, value in inputs.items()}
        once = nullcontext()
        if any(shown) and not self.training and not (self.trainable and torch.is_grad_enabled()):
            once = tower_sees_once(self.encoder.visual, self._memory, chosen.to(device), self.images)
        with once, self.running():
            states = self.encoder(**inputs).last_hidden_state  # (N, L, D)
            if not any(shown) and torch.is_grad_enabled():
                states = states + _zero_of(self.encoder.visual, states)
        return self._kept_states(states, kept)

    def _shown(self, texts: Sequence[str], images: Tensor | None, has_image: Tensor | None) -> list[bool]:
        if images is not None and len(images) != len(texts):
            raise ValueError(f'expected one image per text, but got {len(images)} images and {len(texts)} texts')
        if has_image is not None and len(has_image) != len(texts):
            raise ValueError(f'expected has_image for each of {len(texts)} texts, but got {len(has_image)} values')
        if not self.looks_at_images:
            return [False] * len(texts)
        if has_image is None:
            return [images is not None] * len(texts)
        shown = has_image.tolist()
        if any(shown) and images is None:
            raise ValueError('has_image names samples with an image, but got no images')
        return shown

    def _sequence(self, text: str, num_image_tokens: int | None, images: Tensor | None) -> tuple[list[int], list[bool]]:
        """Tokens of one prompt, and which of their states are kept."""
        chat = self.text_chat if num_image_tokens is None else self.chat
        image = [] if num_image_tokens is None else self.image_text + chat.image(num_image_tokens)
        image_kept = [self.keep == 'all'] * len(image)
        room = self.max_length - sum(image_kept) - len(chat.suffix)
        if room < 1:
            size = f' and {len(image)} of an image of {tuple(images.shape[-2:])}' if image else ''
            raise ValueError(
                f"max_length must leave room for words beside the template's {len(chat.suffix)} tokens{size}, but got "
                f"{self.max_length}; raise it, lower max_pixels or take keep='text'"
            )
        words = chat.words(text)[:room]
        kept = [False] * len(chat.prefix) + image_kept + [True] * (len(words) + len(chat.suffix))
        return chat.prefix + image + words + chat.suffix, kept

    def _kept_states(self, states: Tensor, kept: Sequence[list[bool]]) -> PromptEmbeddings:
        """Moves the kept states of each row to its left end."""
        counts = torch.tensor([sum(row) for row in kept])
        length = self.max_length if self.padding == 'max_length' else int(counts.max())
        taken = torch.zeros(states.shape[:2], dtype=torch.bool)  # (N, L)
        for index, row in enumerate(kept):
            taken[index, : len(row)] = torch.tensor(row)
        mask = (torch.arange(length) < counts[:, None]).to(states.device)
        output = states.new_zeros(len(states), length, states.shape[-1])
        output[mask] = states[taken.to(states.device)]
        return PromptEmbeddings(output, mask)


def _by_task(system_prompt: str | Mapping[str, str | None] | None) -> dict[str, str | None]:
    if not isinstance(system_prompt, Mapping):
        return dict.fromkeys(SYSTEM_PROMPTS, system_prompt)
    unknown = set(system_prompt) - set(SYSTEM_PROMPTS)
    if unknown:
        raise ValueError(
            f'system_prompt: expected a text, None, or texts for {" and ".join(SYSTEM_PROMPTS)}, but got '
            f'{sorted(unknown)}'
        )
    return {**SYSTEM_PROMPTS, **system_prompt}


def _of_pipeline(system_prompt: str) -> str:
    """The system message of a pipeline of diffusers, if it is the name of one; else as it is."""
    if system_prompt not in PIPELINES:
        return system_prompt
    import diffusers

    pipeline = getattr(diffusers, PIPELINES[system_prompt])
    parts = dict.fromkeys(set(signature(pipeline).parameters))
    return pipeline(**parts).prompt_template_encode.split('system\n')[1].split('<|im_end|>')[0]


def build_qwen_vl(config: dict) -> nn.Module:
    """A Qwen-VL model of transformers.

    Args:
        config: With a ``type``, built by the registry; else keyword arguments of its transformers config, with
            ``model_type``, for random weights.

    Raises:
        ValueError: If it is no Qwen-VL, or the config has neither key.
    """
    if 'type' in config:
        model = build_part(config)
    else:
        from transformers import AutoConfig, AutoModelForImageTextToText

        if 'model_type' not in config:
            raise ValueError(f"expected a config with 'type' or 'model_type', but got {config}")
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**config))
    inner = getattr(model, 'model', model)
    if not all(hasattr(inner, name) for name in ('visual', 'language_model', 'get_rope_index')):
        raise ValueError(f'expected a Qwen2.5-VL or Qwen3-VL of transformers, but got a {type(model).__name__}')
    return model


def _to(value: object, device: torch.device) -> object:
    return value.to(device) if isinstance(value, Tensor) else value


def _zero_of(module: nn.Module, like: Tensor) -> Tensor:
    """A zero that depends on all parameters: without it, ranks whose batch has no image would hang the others."""
    terms = [local_of(p).sum() for p in module.parameters() if p.requires_grad]
    return 0 * torch.stack(terms).sum().to(like) if terms else like.new_zeros(())


class ChatBatch(NamedTuple):
    """Token sequences of one length, on the CPU.

    Attributes:
        input_ids: (N, L) int64.
        attention_mask: 1 at tokens, 0 at padding, (N, L) int64.
        mm_token_type_ids: 1 at image tokens, (N, L) int64.
    """

    input_ids: Tensor
    attention_mask: Tensor
    mm_token_type_ids: Tensor


_TEXT_MARK = 'THE-TEXT-GOES-HERE'


class QwenVLChat:
    """The tokenizer's chat template around (image, text), as tokens: prefix, image, text, suffix.

    The template is rendered once and cut at the user's words, so that prefix and suffix are known to the token
    whatever the template says. Words are never read as special tokens.

    Args:
        tokenizer: Folder / hub id of a tokenizer with a chat template.
        config: The model's config, whose special token ids are used.
        system_prompt: System message; None leaves it to the template.
        **kwargs: Of the tokenizer's ``from_pretrained``.

    Attributes:
        prefix: Ids before the user's message: system message and the user's header.
        suffix: Ids after it: its end, and the header of the answer.
        padding: Id that fills up; never attended to.

    Raises:
        ValueError: If there is no chat template, or the tokenizer is another model's.
    """

    def __init__(self, tokenizer: str, config: object, system_prompt: str | None = None, **kwargs: Any) -> None:
        self.tokenizer = load_tokenizer(tokenizer, **kwargs)
        if self.tokenizer.chat_template is None:
            raise ValueError(
                f'the tokenizer of {tokenizer!r} has no chat template: expected that of a Qwen-VL Instruct model'
            )
        image_token = self.tokenizer.convert_tokens_to_ids('<|image_pad|>')
        if image_token != config.image_token_id:
            raise ValueError(
                f"{tokenizer!r}: expected '<|image_pad|>' to be token {config.image_token_id} as in the model, but got "
                f'{image_token}: they do not belong together'
            )
        self.image_token_id = config.image_token_id
        self._around_image = (config.vision_start_token_id, config.vision_end_token_id)
        self.padding = self.tokenizer.pad_token_id
        if self.padding is None:
            self.padding = config.vision_end_token_id
        self._source = tokenizer
        self.prefix, self.suffix = self._around_words(system_prompt)

    def with_system_prompt(self, system_prompt: str | None) -> 'QwenVLChat':
        """The same conversation under another system message; tokenizer and ids are shared."""
        other = copy.copy(self)
        other.prefix, other.suffix = self._around_words(system_prompt)
        return other

    def _around_words(self, system_prompt: str | None) -> tuple[list[int], list[int]]:
        messages = [dict(role='user', content=_TEXT_MARK)]
        if system_prompt is not None:
            messages.insert(0, dict(role='system', content=_of_pipeline(system_prompt)))
        rendered = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if rendered.count(_TEXT_MARK) != 1:
            raise ValueError(
                f"the chat template of {self._source!r} must show the user's words once, but got {rendered!r}"
            )
        before, after = rendered.split(_TEXT_MARK)
        return self._ids(before), self._ids(after)

    def _ids(self, text: str, **kwargs) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, **kwargs).input_ids

    def words(self, text: str) -> list[int]:
        """Ids of the user's words; special tokens in them are mere text."""
        return self._ids(text, split_special_tokens=True)

    def image(self, num_tokens: int) -> list[int]:
        """Ids of an image of ``num_tokens`` tokens, between its start and its end."""
        start, end = self._around_image
        return [start, *[self.image_token_id] * num_tokens, end]

    def batch(self, sequences: Sequence[list[int]], side: str = 'right') -> ChatBatch:
        """Pads sequences to the longest, on their 'right' or 'left'."""
        length = max(map(len, sequences))
        ids = torch.full((len(sequences), length), self.padding)
        attention = torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            place = slice(len(sequence)) if side == 'right' else slice(length - len(sequence), None)
            ids[row, place] = torch.tensor(sequence)
            attention[row, place] = 1
        is_image = (ids == self.image_token_id) & attention.bool()
        return ChatBatch(ids, attention, is_image.long())


class QwenVLImages:
    """The released image processor's formula on tensors, on the device that they are on.

    The processor itself works on one PIL image after the other on the CPU. Here the sizes come from its
    ``smart_resize``, and resize (bicubic, rounded to 8 bit), normalisation and patch order are its own.

    Args:
        processor: Folder / hub id with ``preprocessor_config.json``.
        vision_config: The model's, to check that both belong together.
        min_pixels: Smaller images are enlarged to this area. Default: the processor's.
        max_pixels: Larger images are shrunk to this area. Default: the processor's.
        **kwargs: Of the processor's ``from_pretrained``.

    Raises:
        ValueError: If patches or bounds do not fit.
    """

    def __init__(
        self,
        processor: str,
        vision_config: object,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        **kwargs: Any,
    ) -> None:
        from transformers import Qwen2VLImageProcessorPil

        loaded = Qwen2VLImageProcessorPil.from_pretrained(processor, **kwargs)
        own = (loaded.patch_size, loaded.merge_size, loaded.temporal_patch_size)
        model = (vision_config.patch_size, vision_config.spatial_merge_size, vision_config.temporal_patch_size)
        if own != model:
            raise ValueError(
                f'{processor}: expected patch, merge and temporal patch size {model} as in the model, but got {own} in '
                'preprocessor_config.json: they do not belong together'
            )
        self.patch_size, self.merge_size, self.temporal_patch_size = own
        self.min_pixels = min_pixels or int(loaded.size['shortest_edge'])
        self.max_pixels = max_pixels or int(loaded.size['longest_edge'])
        if self.min_pixels > self.max_pixels:
            raise ValueError(f'min_pixels must not exceed max_pixels, but got {self.min_pixels} and {self.max_pixels}')
        self.mean = torch.tensor(loaded.image_mean)[:, None, None]
        self.std = torch.tensor(loaded.image_std)[:, None, None]

    @property
    def pixels_per_token(self) -> int:
        """Side in pixels of what one token of the language model shows."""
        return self.patch_size * self.merge_size

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Cuts images into patches.

        Args:
            images: RGB in [-1, 1], (N, 3, H, W).

        Returns:
            Patches, (N * h * w, 3 * temporal_patch_size * patch_size^2), float32, those of one token in a row, and
            the grids (1, h, w) in patches, (N, 3) int64 on the CPU.

        Raises:
            ValueError: If the images are more than 200 times longer than wide.
        """
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        height, width = images.shape[-2:]
        if max(height, width) > 200 * min(height, width):
            raise ValueError(f'images may be 200 times longer than wide, but got {(height, width)}')
        size = smart_resize(height, width, self.pixels_per_token, self.min_pixels, self.max_pixels)
        levels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
        # PIL goes over the rows first, and rounds to 8 bit after each pass, halves up.
        for shape in ((height, size[1]), size):
            if shape != tuple(levels.shape[-2:]):
                levels = F.interpolate(levels, shape, mode='bicubic', antialias=True)
                levels = (levels + 0.5).floor().clamp(0, 255)
        mean, std = self.mean.to(images.device), self.std.to(images.device)
        pixels = (levels / 255 - mean) / std
        num, channels = pixels.shape[:2]
        patch, merge = self.patch_size, self.merge_size
        rows, columns = size[0] // patch, size[1] // patch
        patches = pixels.reshape(num, channels, rows // merge, merge, patch, columns // merge, merge, patch)
        patches = patches.permute(0, 2, 5, 3, 6, 1, 4, 7)  # (N, h/m, w/m, m, m, 3, p, p)
        # An image is a film of equal frames.
        patches = patches.unsqueeze(6).expand(*[-1] * 6, self.temporal_patch_size, -1, -1)
        grid = torch.tensor([[1, rows, columns]]).expand(num, 3)
        return patches.reshape(num * rows * columns, -1), grid  # (N h w, 3 t p p)
