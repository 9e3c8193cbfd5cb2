"""Model from config and weights, with errors that name the file."""

import copy
import difflib
import warnings
from collections.abc import Callable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from genseg_mm.checkpoint import check_whole, load_weights_only, model_weights, some_of
from genseg_mm.config_file import read_config_file
from genseg_mm.devices import checked_device
from genseg_mm.files.hub_files import hub_message
from genseg_mm.metafiles import entry_of_config, metafile_models, plain_name, weights_of_entry

CONFIG_ENDINGS = ('.py', '.json', '.yml', '.yaml')
RANDOM = 'random'  # in place of weights: an untrained model is wanted


def read_config(model: str | PathLike | Config | dict) -> tuple[Config, str | None]:
    """Config of a file, of a name in a metafile, or as it is.

    Args:
        model: Path of a config; name of a model of ``configs/*/metafile.yaml``, with or without ``genseg_mm/`` before
            it; or a config with the key ``model``.

    Returns:
        The config, and the weights that the metafile names, if any.

    Raises:
        FileNotFoundError: If there is neither a file nor a model of this name.
        ValueError: If it is no config of a model.
    """
    weights = None
    if isinstance(model, (str, PathLike)):
        path = fspath(model)
        if not Path(path).is_file():
            path, weights = _from_metafile(path)
        cfg = read_config_file(path)
    elif isinstance(model, (Config, ConfigDict, dict)):
        path = 'the config'
        cfg = Config(dict(model)) if not isinstance(model, Config) else copy.deepcopy(model)
    else:
        raise ValueError(
            f'model must be the path of a config, a config or a built model, but got {type(model).__name__}; '
            'the config that a checkpoint carries is not used, since it is code that would be run'
        )
    if not isinstance(cfg.get('model'), dict):
        raise ValueError(f"{path} has no key 'model' with the config of a model, but {sorted(cfg.keys())}")
    return cfg, weights


def chosen_weights(model: Any, given: str | PathLike | None, own: str | PathLike | None) -> str | PathLike | None:
    """Weights for a model: the given ones, else those that the metafile names.

    Args:
        model: As of :func:`read_config`.
        given: Weights that the user names; ``'random'`` for an untrained model.
        own: Weights that :func:`read_config` found.

    Returns:
        A path, or None for an untrained model, of which :func:`build_model` warns.

    Raises:
        ValueError: If a model is asked for by its name and there are no weights: a name means a trained model.
    """
    if given is not None:
        return None if given == RANDOM else given
    if own is None and isinstance(model, (str, PathLike)) and not Path(fspath(model)).is_file():
        config = metafile_models()[1][plain_name(fspath(model))]['Config']
        raise ValueError(
            f'{fspath(model)} is a config without trained weights (there are those of {", ".join(with_weights())}): '
            f'train it with genseg train {Path(config).stem} and give weights=CHECKPOINT, or weights={RANDOM!r} for an '
            'untrained model'
        )
    return own


def is_config(model: str) -> bool:
    """Whether a name means a config, and not released weights: its ending, or a metafile, says so."""
    return model.endswith(CONFIG_ENDINGS) or plain_name(model) in metafile_models()[1]


def near_models(name: str) -> str:
    """``; did you mean ...?`` with names of the metafiles that are nearly this one, or nothing."""
    near = difflib.get_close_matches(plain_name(name), metafile_models()[1], 3)
    return f'; did you mean {" or ".join(near)}?' if near else ''


def shipped_weights(config: str | PathLike) -> str | None:
    """Trained weights that come with a config of ``configs/``, given by its file; None if there are none."""
    entry = entry_of_config(fspath(config))
    return None if entry is None else weights_of_entry(entry)


def with_weights() -> list[str]:
    """Names of the models that come with trained weights."""
    return sorted(name for name, one in metafile_models()[1].items() if one.get('Weights'))


def _from_metafile(name: str) -> tuple[str, str | None]:
    root, models = metafile_models()
    found = models.get(plain_name(name))
    if found is None:
        raise FileNotFoundError(
            f'{name} is neither the file of a config nor a model of genseg_mm'
            + (near_models(name) or f'; those that come with weights are {", ".join(with_weights())}')
        )
    return str(Path(root, found['Config'])), weights_of_entry(found)


def build_model(
    cfg: Config, weights: str | PathLike | None, device: str | torch.device | None, scope: str | None = None
) -> nn.Module:
    """The model of a config, with trained weights, ready for inference.

    Args:
        cfg: Config with the key ``model``.
        weights: Checkpoint of a runner or file of weights (.pth, .safetensors); None warns that the model is untrained.
        device: Such as 'cuda:0'; None takes the best there is.
        scope: In which the types of the config are found; default: its ``default_scope``.
    """
    device = checked_device(device)
    with DefaultScope.overwrite_default_scope(scope or cfg.get('default_scope') or 'genseg_mm'):
        try:
            model = MODELS.build(cfg.model)
        except (OSError, ValueError) as error:
            message = hub_message(error)
            if message is None:
                raise
            raise FileNotFoundError(message) from error
    model.cfg = cfg
    if weights is None:
        warnings.warn('no weights were given: the predictions are those of an untrained model', stacklevel=3)
    else:
        load_weights(model, weights)
    return model.to(device).eval()


def build_description_writer(
    cfg: Config, device: torch.device, scope: str
) -> Callable[[Sequence[np.ndarray], Sequence[str]], list[str]]:
    """The ``description_writer`` of a config, for two-stage reasoning.

    Raises:
        ValueError: If the config has none.
    """
    if not isinstance(cfg.get('description_writer'), dict):
        raise ValueError(
            "describe=True needs a config with the key 'description_writer', such as "
            "dict(type='genseg_mm.DescriptionWriter', model=..., processor=...), but got "
            f'{sorted(cfg.keys())}'
        )
    with DefaultScope.overwrite_default_scope(scope):
        writer = MODELS.build(cfg.description_writer)
    return writer.to(device).eval() if isinstance(writer, nn.Module) else writer


def load_weights(model: nn.Module, path: str | PathLike) -> None:
    """Loads trained weights, all of which have to fit.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, would run code, or does not fit the model; with the names that do not fit.
    """
    state = _read_state(fspath(path))
    own = model.state_dict()
    shapes = [
        f'{name} is {tuple(value.shape)} in the file and {tuple(own[name].shape)} in the model'
        for name, value in state.items()
        if name in own and value.shape != own[name].shape
    ]
    problems = [f'{len(shapes)} of other shapes: {some_of(shapes)}'] if shapes else []
    if not shapes:
        # Frozen parts with a source of their own are not in the file and are not reported as missing.
        report = model.load_state_dict(state, strict=False)
        for names, what in ((report.missing_keys, 'missing in'), (report.unexpected_keys, 'only in')):
            if names:
                problems.append(f'{len(names)} {what} the file: {some_of(names)}')
    if problems:
        raise ValueError(
            f'weights {fspath(path)} do not fit the model: {"; ".join(problems)}; were they trained with this config?'
        )


def _read_state(path: str) -> dict[str, Tensor]:
    if '://' in path:
        raise ValueError(f'expected weights in a local file, but got {path}: download them first')
    if not path.endswith('.safetensors'):
        check_whole(path)
    return model_weights(load_weights_only(path), path)
