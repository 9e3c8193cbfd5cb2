"""Released repositories written anew with random weights, in the layout of the hub's cache.

With ``HF_HUB_CACHE`` set to such a folder and ``HF_HUB_OFFLINE=1``, a config runs as it is written: the libraries find
the repositories that it names as if they had been downloaded.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genseg_mm.files.tensors import write_tensors
from genseg_mm.files.whole_files import scratch_folder
from genseg_mm.hub_layouts.layouts import Part, layout
from genseg_mm.hub_layouts.sizes import with_layers, with_small_widths
from genseg_mm.hub_layouts.tokenizers import write_tokenizer

WIDTHS = ('full', 'tiny')
_STD = 0.02
_PERIOD = 1_000_003  # after which a tensor's numbers come again; a prime, so that no two rows are alike


def write_repository(
    repository: str,
    cache: Path,
    layers: int | None = 2,
    width: str = 'full',
    subfolders: set[str] | None = None,
    weights: bool = True,
) -> Path:
    """Writes a repository into a cache, or leaves what an earlier call wrote.

    Args:
        repository: Hub id with a known layout.
        cache: Folder for ``HF_HUB_CACHE``.
        layers: Of each kind that every model keeps at most; None for all.
        width: 'full' as released, 'tiny' with small widths.
        subfolders: Parts with weights that are wanted; all by default. Small files are written in any case.
        weights: False writes files of weights without any, for models without values.

    Returns:
        The snapshot's folder.
    """
    if width not in WIDTHS:
        raise ValueError(f'width must be one of {WIDTHS}, but got {width!r}')
    parts = layout(repository)
    known = json.dumps([layers, width, weights, {key: asdict(part) for key, part in parts.items()}], sort_keys=True)
    commit = hashlib.sha1(known.encode()).hexdigest()
    folder = cache / f'models--{repository.replace("/", "--")}'
    snapshot = folder / 'snapshots' / commit
    snapshot.mkdir(parents=True, exist_ok=True)
    for subfolder, part in parts.items():
        wanted = part.kind is None or subfolders is None or subfolder in subfolders
        done = snapshot / subfolder / '.whole'
        if wanted and not done.exists():
            with scratch_folder(folder / 'part') as own:
                _write_part(part, own, layers, width, weights)
                shutil.copytree(own, snapshot / subfolder, dirs_exist_ok=True, copy_function=shutil.move)
            done.touch()
    (folder / 'refs').mkdir(exist_ok=True)
    (folder / 'refs' / 'main').write_text(commit)
    return snapshot


def rehearsed_config(part: Part, layers: int | None, width: str) -> dict[str, Any]:
    """``config.json`` of a part as it is rehearsed."""
    config = part.config if layers is None else with_layers(part.config, layers)
    return with_small_widths(part.kind, config) if width == 'tiny' else config


def model_on_meta(kind: str, config: dict[str, Any]) -> nn.Module:
    """A model of diffusers or transformers without weights."""
    import diffusers
    import transformers

    library, _, name = kind.partition('.')
    owner = getattr(dict(diffusers=diffusers, transformers=transformers)[library], name)
    with torch.device('meta'):
        if library == 'diffusers':
            return owner.from_config({key: value for key, value in config.items() if key[0] != '_'})
        return owner(owner.config_class.from_dict(dict(config)))


def _write_part(part: Part, folder: Path, layers: int | None, width: str, weights: bool) -> None:
    for name, value in part.files.items():
        (folder / name).write_text(json.dumps(value, indent=2) + '\n')
    if part.tokenizer is not None:
        write_tokenizer(part.tokenizer, folder, part.settings)
    if part.kind is None:
        return
    config = rehearsed_config(part, layers, width)
    (folder / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
    stem = 'diffusion_pytorch_model' if part.kind.startswith('diffusers') else 'model'
    if not weights:
        write_tensors(folder / f'{stem}.safetensors', {}, {'format': 'pt'})
        return
    model = model_on_meta(part.kind, config)
    dtype = getattr(torch, part.dtype)
    tensors = {_stored_name(name, part.rename): value for name, value in _own_tensors(model)}
    _write_shards(tensors, folder, stem, dtype, min(part.shards, 2))


def _own_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """State by name; of tied tensors the first alone, as releases store them."""
    seen = set()
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value


def _stored_name(name: str, rename: dict[str, str]) -> str:
    for today, stored in rename.items():
        if name.startswith(today):
            return stored + name.removeprefix(today)
    return name


def _write_shards(tensors: dict[str, Tensor], folder: Path, stem: str, dtype: torch.dtype, shards: int) -> None:
    """One file, or several of about the same size with their index."""
    sizes = {name: value.numel() * dtype.itemsize for name, value in tensors.items()}
    limit, parts, held = sum(sizes.values()) / shards, [[]], 0
    for name, size in sizes.items():
        if held and held + size / 2 > limit and len(parts) < shards:
            parts.append([])
            held = 0
        parts[-1].append(name)
        held += size
    index, generator = {}, torch.Generator().manual_seed(0)
    for number, names in enumerate(parts, 1):
        file = f'{stem}.safetensors' if len(parts) == 1 else f'{stem}-{number:05d}-of-{len(parts):05d}.safetensors'
        values = {name: _drawn(name, tensors[name], dtype, generator) for name in names}
        write_tensors(folder / file, values, {'format': 'pt'})
        index.update(dict.fromkeys(names, file))
    if len(parts) > 1:
        described = dict(metadata=dict(total_size=sum(sizes.values())), weight_map=index)
        (folder / f'{stem}.safetensors.index.json').write_text(json.dumps(described, indent=2) + '\n')


def _drawn(name: str, like: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Small numbers; ones where a layer scales."""
    if not like.is_floating_point():
        return torch.zeros(like.shape, dtype=like.dtype)
    scales = name.endswith(('running_var', 'gamma')) or ('norm' in name.lower() and name.endswith('weight'))
    if scales and like.ndim <= 1 or name.endswith('running_var'):
        return torch.ones(like.shape, dtype=dtype)
    value = torch.empty(like.shape, dtype=dtype)
    flat = value.view(-1)
    drawn = (torch.randn(min(flat.numel(), _PERIOD), generator=generator) * _STD).to(dtype)
    for start in range(0, flat.numel(), _PERIOD):
        own = flat[start : start + _PERIOD]
        own.copy_(drawn[: own.numel()])
    return value


def random_weights_like(config: dict[str, Any], scope: str | None, file: Path) -> None:
    """Writes a ``.pth`` that a module of a registry can start from (``init_cfg`` of type Pretrained).

    Args:
        config: Of the module, without its ``init_cfg``.
        scope: ``default_scope`` of the config that it stands in.
        file: To write.
    """
    from mmengine.registry import MODELS, init_default_scope

    init_default_scope(scope or 'mmengine')
    generator = torch.Generator().manual_seed(0)
    model = MODELS.build(config)
    state = {name: _drawn(name, value, value.dtype, generator) for name, value in model.state_dict().items()}
    torch.save(dict(state_dict=state), file)
