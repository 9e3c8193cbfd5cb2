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
from mmengine.infer import BaseInferencer
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

import genseg_mm
from genseg_mm.checkpoint import check_whole, load_weights_only, model_weights, some_of
from genseg_mm.command import shipped_root
from genseg_mm.config_file import read_config_file
from genseg_mm.devices import checked_device
from genseg_mm.files.hub_files import hub_message

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
        config = _metafile_models()[1][_plain(fspath(model))]['Config']
        raise ValueError(
            f'{fspath(model)} is a config without trained weights (there are those of {", ".join(with_weights())}): '
            f'train it with genseg train {Path(config).stem} and give weights=CHECKPOINT, or weights={RANDOM!r} for an '
            'untrained model'
        )
    return own


def is_config(model: str) -> bool:
    """Whether a name means a config, and not released weights: its ending, or a metafile, says so."""
    return model.endswith(CONFIG_ENDINGS) or _plain(model) in _metafile_models()[1]


def near_models(name: str) -> str:
    """``; did you mean ...?`` with names of the metafiles that are nearly this one, or nothing."""
    near = difflib.get_close_matches(_plain(name), _metafile_models()[1], 3)
    return f'; did you mean {" or ".join(near)}?' if near else ''


def shipped_weights(config: str | PathLike) -> str | None:
    """Trained weights that come with a config of ``configs/``, given by its file; None if there are none."""
    root, models = _metafile_models()
    for one in models.values():
        if Path(root, one['Config']).resolve() == Path(config).resolve():
            return _path_of(one.get('Weights'))
    return None


def with_weights() -> list[str]:
    """Names of the models that come with trained weights."""
    return sorted(name for name, one in _metafile_models()[1].items() if one.get('Weights'))


def _metafile_models() -> tuple[str, dict[str, dict]]:
    """Folder that the metafiles' paths start from, and their models by name."""
    root = str(shipped_root())
    return root, {_plain(one['Name']): one for one in BaseInferencer._get_models_from_metafile(root)}


def _path_of(weights: str | None) -> str | None:
    """The file of an entry of a metafile."""
    if weights and '://' not in weights:  # of this package, wherever it is installed
        return str(Path(genseg_mm.__file__).resolve().parents[1] / weights)
    return weights or None


def _plain(name: str) -> str:
    return name.lower().removeprefix('genseg_mm/')


def _from_metafile(name: str) -> tuple[str, str | None]:
    root, models = _metafile_models()
    found = models.get(_plain(name))
    if found is None:
        raise FileNotFoundError(
            f'{name} is neither the file of a config nor a model of genseg_mm'
            + (near_models(name) or f', which are {", ".join(sorted(models))}')
        )
    return str(Path(root, found['Config'])), _path_of(found.get('Weights'))


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
