"""What tools/train.py and tools/test.py are made of.

Everything is imported when it is first asked for: a command line is read, and a wrong one refused, before torch is.
"""

from importlib import import_module
from typing import Any

_PLACES = dict(
    ToolParser='command_line',
    run_tool='user_errors',
    user_message='user_errors',
    add_common_arguments='config',
    load_config='config',
    check_config='config_checks',
    check_device='switches',
    dump_predictions='switches',
    enable_amp='switches',
    enable_lr_scaling='switches',
    enable_pictures='switches',
    enable_tta='switches',
    set_checkpoint='switches',
    set_resume='switches',
    connect_processes='processes',
    SafeRunner='runner',
    build_runner='runner',
)

__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f'{__name__}.{_PLACES[name]}'), name)
    if name in (*_PLACES.values(), 'latent_data', 'dataset_parts', 'expected_items'):
        return import_module(f'{__name__}.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
