"""Released gen2seg weights as a model that is ready to predict."""

from typing import Any

from genseg_mm.models.colorers.released_folder import released_kind
from genseg_mm.models.gen2seg import Gen2Seg

# What is settled by the kind of folder; all else is the preset's (genseg_mm/models/presets.py).
SETTINGS = {
    'sd': dict(colorer=dict(type='genseg_mm.SDColorer', parity='released'), preset='as_published'),
    'mae': dict(colorer=dict(type='genseg_mm.MAEColorer'), preset='as_published'),
}


def load_released(source: str, device: str = 'cpu', **overrides: Any) -> Gen2Seg:
    """A Gen2Seg from released weights, or from what our trainings wrote in the same formats.

    ``reachomk/gen2seg-sd`` is a Stable Diffusion 2 pipeline, ``reachomk/gen2seg-mae-h`` a
    ``ViTMAEForPreTraining``; the kind is recognised by ``model_index.json`` or ``config.json``. Of
    a hub id only the files needed are fetched.

    Args:
        source: Folder or hub id.
        device: Device of the model.
        overrides: Arguments of :class:`~genseg_mm.models.gen2seg.Gen2Seg` in place of the preset's, such as
            ``processing_size=0`` (the own size of a picture) and ``output='float'`` (no 8 bits); ``colorer`` is a dict
            that adds to the colorer's arguments, such as ``dict(parity='training')``.

    Returns:
        The model, in eval mode.

    Raises:
        FileNotFoundError: If there is no such folder, or it is not whole.
        ValueError: If it holds something else or is damaged.
    """
    settings = SETTINGS[released_kind(source)]
    colorer = {**settings['colorer'], 'pretrained': str(source), **overrides.pop('colorer', {})}
    return Gen2Seg(**{**settings, **overrides, 'colorer': colorer}).to(device).eval()
