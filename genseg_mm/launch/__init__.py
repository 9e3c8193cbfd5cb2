"""What tools/train.py and tools/test.py are made of.

Everything is imported when it is first asked for: a command line is read, and a wrong one refused, before torch is.
"""

from importlib import import_module
from typing import Any

_PLACES = dict(
    ToolParser='command_line',
    run_tool='command_line',
    user_message='command_line',
    add_common_arguments='config',
    add_speed_arguments='config',
    load_config='config',
    check_config='config_checks',
    check_device='config',
    dump_predictions='config',
    enable_amp='config',
    enable_lr_scaling='config',
    enable_pictures='config',
    enable_tta='config',
    set_checkpoint='config',
    set_resume='config',
    set_speed='config',
    speed_options='config',
    connect_processes='processes',
    SafeFlexibleRunner='runner',
    SafeRunner='runner',
    build_runner='runner',
)

__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f'{__name__}.{_PLACES[name]}'), name)
    if name in (*_PLACES.values(), 'dataset_parts'):
        return import_module(f'{__name__}.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
