"""Settings that belong together: how the public code runs the released gen2seg weights."""

from typing import Any

# By colorer. Both scripts write an 8-bit picture of the map, cut, not rounded, and resize that by PIL's Lanczos. The
# Stable Diffusion pipeline stretches the decoded map with its padding; the MAE's stretches each map, then takes it to
# the power of 0.7. The sizes are the colorers' own (``network_resize``).
AS_PUBLISHED = dict(
    SDColorer=dict(normalize='batch', gamma=1.0, stretch='padded', output='picture'),
    MAEColorer=dict(normalize='batch', gamma=0.7, stretch='image', output='picture'),
)
DEFAULTS = dict(normalize='batch', gamma=1.0, stretch='image', output='float')
PRESETS = ('as_published',)


def settings_for(preset: str | None, colorer: str, **given: Any) -> dict[str, Any]:
    """Settings of a ``Gen2Seg``: those given, else the preset's, else the defaults.

    Args:
        preset: 'as_published' or None.
        colorer: Name of the colorer's class.
        given: ``normalize``, ``gamma``, ``stretch``, ``output``; None where not given.

    Raises:
        ValueError: If there is no such preset, or none for this colorer.
    """
    if preset is not None and preset not in PRESETS:
        raise ValueError(f'preset must be one of {", ".join(PRESETS)} or None, but got {preset!r}')
    if preset is not None and colorer not in AS_PUBLISHED:
        raise ValueError(
            f"preset 'as_published' is for {' and '.join(AS_PUBLISHED)}, but got the colorer {colorer}; leave it out"
        )
    own = DEFAULTS if preset is None else AS_PUBLISHED[colorer]
    return {**own, **{key: value for key, value in given.items() if value is not None}}
