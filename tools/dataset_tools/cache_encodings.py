"""Encodes pictures, masks and prompts of a config's datasets once, with its frozen encoders, to disk.

    python tools/dataset_tools/cache_encodings.py CONFIG --out caches/refcoco [--split train] [--what image mask prompt]

The config may have ``genseg_mm.CachedEncodings`` in its pipelines already or be the one without; at the end the tool
prints the pipeline that trains from the cache. Run it again after a kill, or when pictures or texts have been added or
changed: only what is missing is encoded.
"""

import argparse
import itertools
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

if __name__ == '__main__':
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while the imports run

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.data import DataLoader

from genseg_mm.benchmarking.suite import read_dataset_config
from genseg_mm.config_file import find_config
from genseg_mm.datasets.encoding_cache import KINDS, EncodingCacheWriter, content_key
from genseg_mm.launch import ToolParser, run_tool
from genseg_mm.launch.config import CfgOptions
from genseg_mm.launch.dataset_parts import SPLITS, dataset_parts
from genseg_mm.registry import MODELS
from genseg_mm.stopping import StoppedBySignal

DTYPES = dict(bfloat16=torch.bfloat16, float16=torch.float16, float32=torch.float32)


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('config', help='config of a GenMask training')
    parser.add_argument('--out', writes='folder', required=True, help='folder of the cache')
    parser.add_argument('--what', nargs='+', choices=KINDS, default=list(KINDS))
    parser.add_argument('--split', nargs='+', choices=SPLITS, default=['train'])
    parser.add_argument('--dtype', choices=DTYPES, default='bfloat16', help='on disk; float32 repeats a training')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--workers', type=int, default=0, help='processes that decode pictures')
    parser.add_argument('--shard-size', type=float, default=256, help='MiB per shard')
    parser.add_argument('--checkpoint', help="weights of encoders without a source (default: the config's load_from)")
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE', help='override settings')
    args = parser.parse_args()
    if args.batch_size < 1 or args.workers < 0 or args.shard_size <= 0:
        parser.error('--batch-size and --shard-size must be positive, --workers not negative')
    find_config(args.config)
    return args


if __name__ == '__main__':
    run_tool(parse_args)  # help and mistakes, before what is imported below takes seconds

from mmengine.runner import set_random_seed
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genseg_mm.checkpoint import load_weights_only, model_weights
from genseg_mm.datasets.cached_encodings import ItemsToEncode, image_item, mask_item, prompt_content
from genseg_mm.models.cached_inputs import encoder_manifest
from genseg_mm.models.mask_head import GenerativeMaskHead

SAVE_EVERY = 120.0  # seconds: what a kill can cost at most, beside a full shard


def build_encoders(cfg: Config, checkpoint: str | None) -> nn.Module:
    """The parts of the config's GenMask that encode, without its DiT, with the weights that training gives them."""
    if not {'codec', 'prompt_encoder'} <= set(cfg.get('model') or {}):
        raise ValueError(
            f'{cfg.filename}: expected a GenMask with codec and prompt_encoder, but got '
            f'model={(cfg.get("model") or {}).get("type")!r}'
        )
    # As a Runner does: an encoder from scratch gets the weights that it has in training.
    set_random_seed((cfg.get('randomness') or {}).get('seed') or 0)
    preprocessor = cfg.model.get('data_preprocessor') or dict(type='genseg_mm.GenSegDataPreprocessor')
    encoders = nn.Module()
    encoders.data_preprocessor = MODELS.build(preprocessor)
    encoders.codec = MODELS.build(cfg.model.codec)
    encoders.prompt_encoder = MODELS.build(cfg.model.prompt_encoder)
    if checkpoint:
        state = model_weights(load_weights_only(checkpoint), checkpoint)
        own = {k: v for k, v in state.items() if k.startswith(('codec.', 'prompt_encoder.'))}
        encoders.load_state_dict(own)
    return encoders.eval().requires_grad_(False)


def trimmed(states: Tensor, mask: Tensor, fixed_length: bool) -> tuple[Tensor, Tensor]:
    """States (l, D) without the zeros of the padding, and the mask (L,), whole where the length is fixed."""
    real = mask.nonzero().flatten()
    first, last = (int(real[0]), int(real[-1]) + 1) if len(real) else (0, 0)
    if states[last:].any() or (first and states[:first].any()):
        return states, mask
    if fixed_length:
        return states[:last], mask
    return states[first:last], mask[first:last]


class Encoding:
    """Encodes items into a cache.

    Args:
        encoders: See :func:`build_encoders`.
        cache: To write to.
        what: Kinds to encode.
        dtype: Of the tensors on disk.
        batch_size: Most pictures or texts at once.
    """

    def __init__(
        self, encoders: nn.Module, cache: EncodingCacheWriter, what: Sequence[str], dtype: torch.dtype, batch_size: int
    ) -> None:
        self.encoders, self.cache, self.what = encoders, cache, what
        self.dtype, self.batch_size = dtype, batch_size
        self.device = next(iter(encoders.state_dict().values()), torch.zeros(())).device
        self.looks = 'prompt' in what and getattr(encoders.prompt_encoder, 'looks_at_images', False)
        self.saved = time.monotonic()

    def plan(self, items: ItemsToEncode) -> tuple[list[int], dict[str, str]]:
        """Which items have to be decoded, and which texts (by content) are encoded without a picture."""
        decode, texts, seen = [], {}, set()
        if 'prompt' in self.what:
            texts[prompt_content('')] = ''
        for index in range(len(items)):
            info = items.info(index)
            is_mask = info.get('task', 'mask') == 'mask'
            wanted = set()
            image, state = '', {}
            if self._needs_picture(is_mask):
                image, state = image_item(info, items.pipeline)
            content = self._current(image, state)
            if image and content is None:
                wanted.add(image)
            if 'mask' in self.what and is_mask:
                key = mask_item(info, items.pipeline)
                record = self.cache.items.get(key)
                if record is None or not self.cache.has('mask', record['content']):
                    wanted.add(key)
            if 'prompt' in self.what and not (self.looks and is_mask):
                texts[prompt_content(info['text'])] = info['text']
            elif 'prompt' in self.what:
                prompt = prompt_content(info['text'], content or image)
                if content is None or not self.cache.has('prompt', prompt):
                    wanted.add(prompt)
            if wanted - seen:
                decode.append(index)
                seen |= wanted
        texts = {key: text for key, text in texts.items() if not self.cache.has('prompt', key)}
        return decode, texts

    def _needs_picture(self, is_mask: bool) -> bool:
        return 'image' in self.what or (self.looks and is_mask)

    def _current(self, key: str, state: dict) -> str | None:
        """Content of a picture that is known and has not changed."""
        record = self.cache.items.get(key)
        if record is None or any(record.get(name) != value for name, value in state.items()):
            return None
        known = 'image' not in self.what or self.cache.has('image', record['content'])
        return record['content'] if known else None

    @torch.no_grad()
    def encode_texts(self, texts: dict[str, str]) -> Iterator[int]:
        """Encodes texts alone; yields how many are done."""
        pairs = list(texts.items())
        for start in range(0, len(pairs), self.batch_size):
            chosen = pairs[start : start + self.batch_size]
            self._put_prompts([key for key, _ in chosen], [text for _, text in chosen], None)
            yield len(chosen)

    @torch.no_grad()
    def encode_items(self, loader: DataLoader) -> Iterator[int]:
        """Encodes decoded items in batches of one size; yields how many are done."""
        waiting = defaultdict(list)
        for item in loader:
            group = waiting[tuple(item['img'].shape)]
            group.append(item)
            if len(group) == self.batch_size:
                self._encode(group)
                yield len(group)
                group.clear()
        for group in filter(None, waiting.values()):
            self._encode(group)
            yield len(group)

    def _encode(self, items: list[dict]) -> None:
        data = dict(inputs=[item['img'].to(self.device) for item in items], data_samples=None)
        images = self.encoders.data_preprocessor(data)['inputs']  # (N, 3, H, W)
        contents = [content_key('pixels', image.cpu().numpy()) for image in images]
        if 'image' in self.what:
            self._put_latents('image', contents, images)
        if 'mask' in self.what:
            self._encode_masks([item for item in items if item['mask'] is not None], items[0])
        if self.looks:
            pairs = list(zip(items, contents, strict=True))
            rows = [row for row, (item, _) in enumerate(pairs) if item['task'] == 'mask']
            keys = [prompt_content(items[row]['text'], contents[row]) for row in rows]
            self._put_prompts(keys, [items[row]['text'] for row in rows], images[rows])
        for item, content in zip(items, contents, strict=True):
            if self._needs_picture(item['task'] == 'mask'):
                key, state = item['keys']['image']
                shapes = {name: item[name] for name in ('ori_shape', 'img_shape')}
                self.cache.note(key, {'content': content, **state, **shapes})
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.cache.flush()
            self.saved = time.monotonic()

    def _encode_masks(self, items: list[dict], first: dict) -> None:
        for item in items:
            if item['mask'].shape != first['img'].shape[1:]:
                raise ValueError(
                    f'{item["name"]}: the mask must have the size of the picture, {tuple(first["img"].shape[1:])}, but '
                    f'got {tuple(item["mask"].shape)}: load it before Resize'
                )
        if not items:
            return
        masks = torch.stack([item['mask'] for item in items])
        contents = [content_key('mask', mask.numpy()) for mask in masks]
        checked = [item['mask_values_checked'] for item in items]
        drawn = GenerativeMaskHead.masks_to_images(masks.to(self.device), checked)
        self._put_latents('mask', contents, drawn)
        for item, content in zip(items, contents, strict=True):
            self.cache.note(item['keys']['mask'], {'content': content})

    def _put_latents(self, kind: str, contents: list[str], images: Tensor) -> None:
        rows = {c: row for row, c in enumerate(contents) if not self.cache.has(kind, c)}
        if rows:
            latents = self._cast(self.encoders.codec.encode(images[list(rows.values())]), kind)
            for content, own in zip(rows, latents, strict=True):
                self.cache.put(kind, content, {'latents': own})

    def _put_prompts(self, contents: list[str], texts: list[str], images: Tensor | None) -> None:
        rows = {c: row for row, c in enumerate(contents) if not self.cache.has('prompt', c)}
        if not rows:
            return
        encoder = self.encoders.prompt_encoder
        images = None if images is None else images[list(rows.values())]
        prompt = encoder([texts[row] for row in rows.values()], images)
        fixed = getattr(encoder, 'padding', 'longest') == 'max_length'
        states = self._cast(prompt.states, 'prompt')
        pooled = getattr(prompt, 'pooled', None)
        for row, content in enumerate(rows):
            own, mask = trimmed(states[row], prompt.mask[row], fixed)
            tensors = {'states': own, 'mask': mask}
            if pooled is not None:
                tensors['pooled'] = self._cast(pooled[row], 'prompt')
            self.cache.put('prompt', content, tensors)

    def _cast(self, tensor: Tensor, kind: str) -> Tensor:
        cast = tensor.to(self.dtype)
        if not torch.isfinite(cast).all():
            raise ValueError(
                f'a {kind} encoding is not finite in {self.dtype} (its largest value is '
                f'{tensor.abs().max().item():.3g}): use --dtype bfloat16 or float32'
            )
        return cast


def run(args: argparse.Namespace) -> None:
    cfg = read_dataset_config(args.config, args.cfg_options)
    parts = dataset_parts(cfg, tuple(args.split))
    encoders = build_encoders(cfg, args.checkpoint or cfg.get('load_from')).to(args.device)
    if 'prompt' in args.what and getattr(encoders.prompt_encoder, 'trainable', False):
        raise ValueError(
            'the prompt encoder of the config is trained, so its embeddings change: --what image mask, or set '
            'model.prompt_encoder.trainable=False'
        )
    items = {part.name: ItemsToEncode(part.cfg) for part in parts}
    manifest = dict(
        config=args.config,
        dtype=args.dtype,
        encoders={kind: encoder_manifest(encoders, kind) for kind in args.what},
        pipelines={own.pipeline: own.transforms for own in items.values()},
    )
    cache = EncodingCacheWriter(args.out, manifest, int(args.shard_size * 2**20))
    try:
        _encode(args, encoders, cache, items)
    except KeyboardInterrupt as error:
        cache.close()
        raise StoppedBySignal(
            getattr(error, 'number', signal.SIGINT),
            f'stopped; what is encoded stays in {args.out}, and the same command encodes the rest',
        ) from error


def _encode(
    args: argparse.Namespace, encoders: nn.Module, cache: EncodingCacheWriter, items: dict[str, ItemsToEncode]
) -> None:
    encoding = Encoding(encoders, cache, args.what, DTYPES[args.dtype], args.batch_size)
    before = {kind: cache.count(kind) for kind in KINDS}
    start = time.perf_counter()
    for name, own in items.items():
        own.chosen, texts = encoding.plan(own)
        print(f'{name}: {len(own.chosen)} of {len(own.dataset)} items and {len(texts)} texts to encode')
        if own.chosen or texts:
            _show_progress(name, encoding, own, texts, args.workers)
        cache.flush()
    cache.close()
    size = sum(path.stat().st_size for path in Path(args.out).iterdir())
    for kind in args.what:
        print(f'{kind}: {cache.count(kind) - before[kind]} new, {cache.count(kind)} in all')
    print(f'{args.out}: {size / 2**20:.1f} MiB, {time.perf_counter() - start:.1f} s')
    for name, own in items.items():
        if own.folder is not None and Path(own.folder).resolve() == Path(args.out).resolve():
            continue
        cached = dict(type='genseg_mm.CachedEncodings', folder=args.out, what=args.what, transforms=own.transforms)
        print(f'{name}, in place of the transforms of pictures and masks:\n    {cached}')


def _show_progress(name: str, encoding: Encoding, items: ItemsToEncode, texts: dict[str, str], workers: int) -> None:
    loader = DataLoader(items, batch_size=None, num_workers=workers)
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(name, total=len(items) + len(texts))
        for count in itertools.chain(encoding.encode_texts(texts), encoding.encode_items(loader)):
            progress.advance(task, count)


def main() -> None:
    run(parse_args())


if __name__ == '__main__':
    run_tool(main)
