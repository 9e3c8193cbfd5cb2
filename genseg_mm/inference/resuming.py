"""Predictions that an ended run has left: which are whole and of the very same model, prompts and settings."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import genseg_mm
from genseg_mm.files import parse_json, read_json_dict
from genseg_mm.inference.images import Source
from genseg_mm.inference.prompts import Prompts
from genseg_mm.inference.results import decoded, file_stamp, plain_prompts

READING = ('prompting', 'automatic', 'processing_size', 'tiles', 'output')  # of a model, beside its weights
_SAMPLED = 4096  # numbers of each weight that tell one model from another


def run_key(model: nn.Module, **settings: Any) -> str:
    """Eight digits that runs share whose predictions are the same: those of a model and of what it was asked."""
    state = model.state_dict()
    weights = [(name, tuple(value.shape), _sampled_crc(value)) for name, value in state.items()]
    reading = [repr(getattr(model, name, None)) for name in READING]
    reading.append(getattr(getattr(model, 'mask_head', None), 'threshold', None))
    text = json.dumps(
        [genseg_mm.__version__, type(model).__name__, weights, reading, sorted(settings.items())], default=repr
    )
    return f'{zlib.crc32(text.encode("utf-8", "surrogatepass")):08x}'


def left_predictions(
    sources: Sequence[Source], prompts: Sequence[Prompts], out_dir: str | Path, key: str
) -> dict[str, Path]:
    """Files of the predictions that a run with this key has left, by stem: of these prompts and these very images."""
    found = {}
    for source, own in zip(sources, prompts, strict=True):
        path = Path(out_dir, 'preds', f'{source.stem}.json')
        content = readable(path) if source.path else None
        if content is None or (content.get('run'), content.get('image')) != (key, source.path):
            continue
        asked = parse_json(json.dumps(plain_prompts(own)), 'prompts')
        # Not by which is newer: a file that was copied or unpacked over another keeps its old time.
        if content['prompts'] == asked and content.get('file') == file_stamp(source.path):
            found[source.stem] = path
    return found


def read_prediction(path: Path) -> dict[str, np.ndarray]:
    """``masks``, ``scores`` and ``bboxes`` as ``save_prediction`` has written them."""
    content = read_json_dict(path)
    return dict(
        masks=decoded(content['masks'], content['height'], content['width']),
        scores=np.asarray(content['scores'], np.float32),
        bboxes=np.asarray(content['bboxes'], np.float32).reshape(-1, 4),
    )


def readable(path: Path) -> dict | None:
    """The content of a JSON file, or None if it is not there, or not whole."""
    try:
        return read_json_dict(path)
    except (FileNotFoundError, ValueError):
        return None


def _sampled_crc(weight: Tensor) -> int:
    flat = weight.detach().flatten()
    flat = flat[:: max(len(flat) // _SAMPLED, 1)].cpu()
    return zlib.crc32(flat.contiguous().view(torch.uint8).numpy().tobytes()) if flat.numel() else 0
