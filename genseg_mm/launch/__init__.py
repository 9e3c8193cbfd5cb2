"""What tools/train.py and tools/test.py are made of."""

from genseg_mm.launch.config import add_common_arguments, load_config
from genseg_mm.launch.processes import connect_processes
from genseg_mm.launch.runner import SafeRunner, build_runner
from genseg_mm.launch.switches import (
    check_device,
    dump_predictions,
    enable_amp,
    enable_lr_scaling,
    enable_pictures,
    enable_tta,
    set_checkpoint,
    set_resume,
)
from genseg_mm.launch.user_errors import run_tool, user_message

__all__ = [
    'SafeRunner',
    'add_common_arguments',
    'build_runner',
    'check_device',
    'connect_processes',
    'dump_predictions',
    'enable_amp',
    'enable_lr_scaling',
    'enable_pictures',
    'enable_tta',
    'load_config',
    'run_tool',
    'set_checkpoint',
    'set_resume',
    'user_message',
]
