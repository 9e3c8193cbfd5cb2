"""Saving a model as a folder, opening one, and putting one on the Hub.

::

    model.save_pretrained('my-colorer')                  # config.json, model.safetensors, README.md, perhaps parts/
    model.push_to_hub('me/my-colorer')
    genseg_mm.from_pretrained('me/my-colorer')           # or the folder, also GenSegInferencer('my-colorer')

``config.json`` says how the model is built, the safetensors files hold what a checkpoint holds. Frozen parts that are
built from a hub id are asked for there again; those from a folder or file of this machine are copied to ``parts/``.
"""

import copy
import hashlib
import inspect
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import HfApi, save_torch_state_dict, snapshot_download
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import Tensor

from genseg_mm import __version__
from genseg_mm.checkpoint import check_fits, load_weights_only
from genseg_mm.dataset_configs import pipeline_of
from genseg_mm.devices import checked_device
from genseg_mm.files import read_json_dict, write_text
from genseg_mm.files.whole_files import explained
from genseg_mm.files.whole_folders import whole_folder
from genseg_mm.models.pretrained_parts import reading
from genseg_mm.models.saved.card import model_card
from genseg_mm.models.saved.config import (
    PARTS,
    SAVED,
    as_json,
    check_config,
    from_parts,
    plain_config,
    type_name,
    with_parts,
)
from genseg_mm.precision import evaluation_dtype
from genseg_mm.registry import MODELS, class_name

CONFIG, CARD = 'config.json', 'README.md'
MAX_SHARD_SIZE = '5GB'
# What of a test pipeline brings a picture to the network; all else loads files and annotations.
_TRANSFORMS = ('Resize', 'AntialiasedResize', 'NetworkResize', 'TextPrompt')
_FORMAT = 1


class SavedModel:
    """``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` of a model that is built from a config."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        model = super().__new__(cls)
        # As it was asked for, since the parts take their settings out; __init__ says what is wrong with them.
        try:
            bound = inspect.signature(cls.__init__).bind_partial(model, *args, **kwargs).arguments
        except TypeError:
            bound = {}
        model.__dict__['_built_with'] = {key: _copied(own) for key, own in list(bound.items())[1:] if own is not None}
        model.__dict__['_built_in'] = getattr(DefaultScope.get_current_instance(), 'scope_name', None) or 'genseg_mm'
        return model

    def save_pretrained(
        self,
        folder: str | Path,
        name: str | None = None,
        license: str = 'apache-2.0',
        results: list[dict[str, Any]] | None = None,
        max_shard_size: str | int = MAX_SHARD_SIZE,
        force: bool = False,
    ) -> None:
        """Writes a folder that :meth:`from_pretrained` opens, with a model card.

        Args:
            folder: It; there whole or not at all.
            name: Title of the card; default: the folder's.
            license: Of the weights, as the Hub names licences. Apache-2.0 is that of the weights which come with the
                package; a model that was fine-tuned from others has theirs.
            results: Measured numbers for the card, as ``Results`` of a metafile: ``Task``, ``Dataset``, ``Metrics``.
                Default: those of the metafile if these are the very weights that it names, else none.
            max_shard_size: Of one file of weights, in bytes or such as '5GB'.
            force: Replace a folder that was saved so before.

        Raises:
            FileExistsError: If the folder holds something.
            ValueError: If the model was not built from a config that can be written; with the key.
            WriteError: If it cannot be written.
        """
        folder = Path(os.path.expanduser(folder))
        _check_target(folder, force)
        with explained(folder), whole_folder(folder) as place:
            self._write(place, name or folder.name, license, results, max_shard_size)

    @classmethod
    def from_pretrained(cls, source: str | Path, device: str | torch.device = 'cpu', **overrides: Any) -> Self:
        """The model of a folder or hub id that :meth:`save_pretrained` wrote, or of released weights of gen2seg.

        Args:
            source: Folder or hub id.
            device: Device of the model.
            overrides: Arguments of the class in place of those saved, such as ``processing_size=0``; dicts are merged.

        Raises:
            FileNotFoundError: If there is no such folder, or it is not whole.
            ValueError: If it holds something else, a model of another class, or is damaged.
        """
        from genseg_mm.models.gen2seg import load_released

        model = load_released(source, device, **overrides)
        if not isinstance(model, cls):
            raise ValueError(f'{source} holds a {type(model).__name__}: expected a {cls.__name__}')
        return model

    def push_to_hub(
        self,
        repo_id: str,
        private: bool = False,
        token: str | None = None,
        commit_message: str | None = None,
        create_pr: bool = False,
        **saving: Any,
    ) -> str:
        """Saves the model to the Hub; the repository is made if need be.

        Args:
            repo_id: owner/name.
            private: Of a new repository.
            token: Of the Hub; default: that of ``hf auth login``.
            commit_message: Of the commit.
            create_pr: Ask for it to be merged in place of committing.
            saving: Arguments of :meth:`save_pretrained`.

        Returns:
            The address of the commit.
        """
        api = HfApi(token=token)
        with tempfile.TemporaryDirectory(prefix='genseg_push_') as parent:
            folder = Path(parent, repo_id.rpartition('/')[2])
            self.save_pretrained(folder, **saving)
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            message = commit_message or f'{type(self).__name__} of genseg_mm {__version__}'
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=str(folder), commit_message=message, create_pr=create_pr
            )
        return str(getattr(commit, 'commit_url', commit))

    def saved_config(self) -> dict[str, Any]:
        """How the model is built, in JSON's types: ``type`` and arguments, as they are set now."""
        arguments = dict(self._built_with)
        for key in ('processing_size', 'tiles'):  # the inferencer sets these
            if key in inspect.signature(type(self).__init__).parameters and hasattr(self, key):
                arguments[key] = getattr(self, key)
                if arguments[key] is None:
                    del arguments[key]
        model = plain_config(arguments, 'model', self._built_in)
        return {'type': type_name(type(self), 'model.type', self._built_in), **model}

    def _write(
        self,
        place: Path,
        name: str,
        license: str,
        results: list[dict] | None,
        max_shard_size: str | int,
    ) -> None:
        cfg = self.__dict__.get('_given_cfg')
        model = self.saved_config()
        _keep_prompt(self, model, place)
        check_config(model, 'model')
        model, elsewhere = with_parts(model, place)
        save_torch_state_dict(
            # Copies: safetensors takes no tensors that share memory, and would leave all but one out.
            {key: own.detach().cpu().clone().contiguous() for key, own in self.state_dict().items()},
            place,
            max_shard_size=max_shard_size,
        )
        files = {own.name: _sha256(own) for own in sorted(place.glob('*.safetensors'))}
        config = dict(
            model_type=SAVED, architectures=[type(self).__name__], format=_FORMAT, genseg_mm_version=__version__,
            model=model, **_of_training(cfg), sha256=files,
        )  # fmt: skip
        write_text(place / CONFIG, as_json(config))
        card = model_card(self, name, license, results, cfg, elsewhere, {own: place / own for own in files}, files)
        write_text(place / CARD, card)


def load_saved(source: str | Path, device: str | torch.device = 'cpu', **overrides: Any) -> torch.nn.Module:
    """The model of a saved folder or hub id, in eval mode. Nothing in it is run, and no pickle is read.

    Raises:
        FileNotFoundError: If there is no such folder, or a file of it is missing.
        ValueError: If it is damaged, or names what may not be built.
    """
    folder = _fetched(source)
    path = folder / CONFIG
    config = read_json_dict(path)
    if (
        config.get('model_type') != SAVED
        or config.get('format') != _FORMAT
        or not isinstance(config.get('model'), dict)
    ):
        raise ValueError(
            f'{path}: expected a model of genseg_mm in format {_FORMAT}, but got model_type '
            f'{config.get("model_type")!r:.40} and format {config.get("format")!r:.40}'
        )
    model = config['model']
    check_config(model, f'{path}: model')
    pipeline = _checked_pipeline(config.get('test_pipeline') or [], path)
    if class_name(model.get('type')) not in ('Gen2Seg', 'GenMask'):
        raise ValueError(f'{path}: model.type must be Gen2Seg or GenMask, but got {model.get("type")!r:.80}')
    model = _merged(from_parts(model, folder), overrides)
    weights = _read_weights(folder, config)
    with DefaultScope.overwrite_default_scope('genseg_mm'):
        built = MODELS.build(ConfigDict(model))
    check_fits(str(folder), weights, built.state_dict())
    built.load_state_dict(weights)
    settings = {key: config[key] for key in ('evaluation_dtype',) if config.get(key) is not None}
    test = dict(dataset=dict(pipeline=pipeline))
    built.cfg = Config(dict(model=model, default_scope='genseg_mm', test_dataloader=test, **settings))
    return built.to(checked_device(device)).eval()


def _check_target(folder: Path, force: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f'{folder} is a file: expected the name of a folder')
    names = {own.name for own in folder.iterdir()}
    if not names:
        return
    path = folder / CONFIG
    is_ours = path.is_file() and read_json_dict(path).get('model_type') == SAVED
    if not force or not is_ours:
        hint = 'force=True replaces it' if is_ours else 'choose another one'
        raise FileExistsError(f'{folder} holds {", ".join(sorted(names)[:4])}: {hint}')


def _keep_prompt(model: Any, config: dict[str, Any], place: Path) -> None:
    """A DiTColorer keeps the prompt that its encoder made, and not the encoder: the prompt goes into a file."""
    colorer = getattr(model, 'colorer', None)
    if not hasattr(colorer, 'save_prompt'):
        return
    target = place / PARTS / 'prompt.safetensors'
    target.parent.mkdir(exist_ok=True)
    colorer.save_prompt(target)
    for key in ('prompt_encoder', 'prompt'):
        config['colorer'].pop(key, None)
    config['colorer']['prompt_embedding'] = f'{PARTS}/{target.name}'


def _of_training(cfg: Config | None) -> dict[str, Any]:
    """What of a training's config decides predictions: the size of pictures, the precision."""
    if cfg is None:
        return {}
    scope = cfg.get('default_scope') or 'genseg_mm'
    kept = [own for own in pipeline_of(cfg) if class_name(own['type']) in _TRANSFORMS]
    found: dict[str, Any] = {}
    if kept:
        found['test_pipeline'] = plain_config(kept, 'test_pipeline', scope)
    dtype = evaluation_dtype(cfg)
    if dtype is not None:
        found['evaluation_dtype'] = str(dtype).removeprefix('torch.')
    return found


def _checked_pipeline(pipeline: Any, path: Path) -> list[dict]:
    entries = pipeline if isinstance(pipeline, list) else [None]
    known = (*_TRANSFORMS, *(f'genseg_mm.{own}' for own in _TRANSFORMS))
    for place, own in enumerate(entries):
        kind = own.get('type') if isinstance(own, dict) else None
        if kind not in known:
            raise ValueError(
                f'{path}: test_pipeline[{place}]: expected one of {", ".join(_TRANSFORMS)}, got {kind!r:.40}'
            )
    # mmcv takes sizes as tuples.
    return [{key: tuple(own) if isinstance(own, list) else own for key, own in entry.items()} for entry in entries]


def _fetched(source: str | Path) -> Path:
    from genseg_mm.models.colorers.released_folder import is_hub_id  # whose package imports our base

    if not is_hub_id(str(source)):
        return Path(os.path.expanduser(source))
    with reading(str(source)):
        patterns = [CONFIG, '*.safetensors', f'{PARTS}/*']
        return Path(snapshot_download(str(source), allow_patterns=patterns))


def _read_weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """All tensors, after comparing the files' checksums."""
    files = config.get('sha256')
    if not isinstance(files, dict) or not files:
        raise ValueError(f'{folder / CONFIG}: expected sha256 with the files of weights, but got {files!r:.60}')
    weights: dict[str, Tensor] = {}
    for name, wanted in files.items():
        path = folder / name
        if Path(name).name != name or path.suffix != '.safetensors':
            raise ValueError(f'{folder / CONFIG}: sha256: expected safetensors files beside it, but got {name!r:.60}')
        if not path.is_file():
            raise FileNotFoundError(f'{folder}: expected {name}, which config.json names, but it is missing')
        found = _sha256(path)
        if found != wanted:
            raise ValueError(
                f'{path} is not the file that was saved: expected SHA-256 {wanted!r:.80}, but got {found}; fetch it '
                'again'
            )
        weights.update(load_weights_only(str(path)))
    return weights


def _sha256(path: Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _merged(config: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    both = [key for key, own in changes.items() if isinstance(own, Mapping) and isinstance(config.get(key), dict)]
    return {**config, **changes, **{key: {**config[key], **changes[key]} for key in both}}


def _copied(value: Any) -> Any:
    return value if isinstance(value, torch.nn.Module) else copy.deepcopy(value)
