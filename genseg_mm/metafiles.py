"""The models of ``configs/*/metafile.yaml``: names, configs, weights that come with the package, measured numbers."""

from pathlib import Path

from mmengine.fileio import load

from genseg_mm.command import shipped_root

_PACKAGE = Path(__file__).resolve().parent


def metafile_models() -> tuple[str, dict[str, dict]]:
    """Folder that the metafiles' paths start from, and their models by name (:func:`plain_name`)."""
    root = shipped_root()
    # As MMEngine's inferencers read them, whose import takes longer than torch's.
    files = load(root / 'model-index.yml')['Import']
    return str(root), {plain_name(one['Name']): one for file in files for one in load(root / file)['Models']}


def plain_name(name: str) -> str:
    """The name of a model as it is looked up: small letters, without ``genseg_mm/`` before it."""
    return name.lower().removeprefix('genseg_mm/')


def weights_of_entry(entry: dict) -> str | None:
    """The file of weights that an entry names, wherever the package is installed; None if it names none."""
    weights = entry.get('Weights')
    if weights and '://' not in weights:
        return str(_PACKAGE.parent / weights)
    return weights or None


def entry_of_config(config: str | Path) -> dict | None:
    """The entry of a config of ``configs/``, given by its file; None if there is none."""
    root, models = metafile_models()
    return next((own for own in models.values() if Path(root, own['Config']).resolve() == Path(config).resolve()), None)
