"""The model card of a saved folder: what it is, how to open it, what was measured of it and how, hashes."""

import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCardData
from mmengine.config import Config
from torch import nn

from genseg_mm import __version__
from genseg_mm.checkpoint import load_weights_only
from genseg_mm.files.hub_files import HUB_ID
from genseg_mm.metafiles import entry_of_config, weights_of_entry

PAPERS = dict(
    Gen2Seg=(
        'gen2seg',
        'https://arxiv.org/abs/2505.15263',
        'an instance colorer: masks of clicks, boxes, or all at once',
    ),
    GenMask=('GenMask', 'https://arxiv.org/abs/2603.23906', 'one forward pass from a picture and a sentence to a mask'),
)
USES = dict(
    Gen2Seg="inferencer('street.jpg', points=[[320, 240]])['predictions'][0]['masks']  # (1, H, W) bool",
    GenMask="inferencer('street.jpg', texts='the red car')['predictions'][0]['masks']  # (1, H, W) bool",
)


def model_card(
    model: nn.Module,
    name: str,
    licence: str,
    results: list[dict[str, Any]] | None,
    cfg: Config | None,
    elsewhere: list[str],
    paths: dict[str, Path],
    hashes: dict[str, str],
) -> str:
    """The text of README.md.

    Args:
        model: It.
        name: Title.
        licence: As the Hub names licences.
        results: As of ``save_pretrained``.
        cfg: Config of the training, if it is known.
        elsewhere: Hub ids and packages that opening it asks for.
        paths: Files of weights by name.
        hashes: Their SHA-256.
    """
    entry = _entry(model, cfg)
    measured = results if results is not None else (entry or {}).get('Results') or []
    kind = type(model).__name__
    paper, address, what = PAPERS.get(kind, (kind, '', 'a model of genseg_mm'))
    hub_ids = [own for own in elsewhere if HUB_ID.fullmatch(own)]
    data = ModelCardData(
        license=licence,
        library_name='genseg_mm',
        pipeline_tag='image-segmentation',
        tags=['genseg_mm', 'openmmlab', paper.lower()],
        base_model=hub_ids or None,
        model_name=name,
        eval_results=_eval_results(measured) or None,
    )
    lines = ['---', data.to_yaml(), '---', '', f'# {name}', '', f'{paper} ({address}): {what}.', '']
    lines += [
        f'Saved by genseg_mm {__version__}; {sum(own.numel() for own in model.parameters()):,} parameters.',
        '', '## Use', '', '```python', 'from genseg_mm.inferencers import GenSegInferencer', '',
        f"inferencer = GenSegInferencer.from_pretrained('{name}')  # this folder, or its id on the Hub",
        USES.get(kind, ''),
        '```', '',
        '`genseg_mm.from_pretrained(...)` gives the model itself. Opening it reads JSON and safetensors, and runs no',
        'code of this folder.', '',
    ]  # fmt: skip
    if elsewhere:
        lines += ['Opening it also asks for these parts, which have licences of their own:', '']
        lines += [*(f'- `{own}`' for own in elsewhere), '']
    lines += ['## Measured', '', *_measured(measured, entry, given=results is not None), '']
    lines += ['## Files', '', '| file | bytes | SHA-256 |', '|---|---|---|']
    lines += [f'| `{own}` | {paths[own].stat().st_size:,} | `{hashes[own]}` |' for own in paths]
    lines += ['', '## Licence', '', f'Weights: {licence}. genseg_mm itself is under Apache-2.0.', '']
    return '\n'.join(lines)


def _entry(model: nn.Module, cfg: Config | None) -> dict[str, Any] | None:
    """The metafile's entry of the config, if these are the very weights that it names."""
    path = getattr(cfg, 'filename', None)
    entry = None if not path else entry_of_config(path)
    file = None if entry is None else weights_of_entry(entry)
    if file is None or not Path(file).is_file():
        return None
    shipped, own = load_weights_only(file), model.state_dict()
    if shipped.keys() != own.keys():
        return None
    same = all(torch.equal(value.to(own[key].dtype), own[key].cpu()) for key, value in shipped.items())
    return entry if same else None


def _eval_results(measured: list[dict[str, Any]]) -> list[EvalResult]:
    return [
        EvalResult(
            task_type='image-segmentation',
            task_name=own['Task'],
            dataset_type=re.sub(r'[^a-z0-9]+', '-', str(own['Dataset']).lower()).strip('-'),
            dataset_name=str(own['Dataset']),
            metric_type=str(metric),
            metric_name=str(metric),
            metric_value=value,
        )
        for own in measured
        for metric, value in own['Metrics'].items()
    ]


def _measured(measured: list[dict[str, Any]], entry: dict[str, Any] | None, given: bool) -> list[str]:
    if not measured:
        return ['Nothing has been measured of these weights yet.']
    rows = ['| task | data | metric | percent |', '|---|---|---|---|']
    rows += [
        f'| {own["Task"]} | {own["Dataset"]} | {metric} | {value} |'
        for own in measured
        for metric, value in own['Metrics'].items()
    ]
    if given:
        return [*rows, '', 'As given by whoever saved the model.']
    config = entry['Config']
    return [
        *rows, '',
        f'Protocol: `python tools/test.py {config} {entry["Weights"]}` of genseg_mm, seed 0, one run; data, controls',
        f'and what the numbers do not show: `{Path(config).parent.as_posix()}/README.md` there.',
    ]  # fmt: skip
