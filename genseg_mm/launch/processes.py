"""Several processes: GPUs through MMEngine, CPUs through gloo."""

import datetime
import os
import signal
import subprocess
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.dist import broadcast_object_list, get_rank, init_dist

from genseg_mm.stopping import end_with_parent

_SLURM = dict(RANK='SLURM_PROCID', WORLD_SIZE='SLURM_NTASKS', LOCAL_RANK='SLURM_LOCALID')
_MPI = dict(RANK='OMPI_COMM_WORLD_RANK', WORLD_SIZE='OMPI_COMM_WORLD_SIZE', LOCAL_RANK='OMPI_COMM_WORLD_LOCAL_RANK')
_VARIABLES = dict(pytorch=dict(RANK='RANK', WORLD_SIZE='WORLD_SIZE'), slurm=_SLURM, mpi=_MPI)


def connect_processes(cfg: Config) -> None:
    """Joins the processes before the runner does: what goes before it is the main process's alone, such as the lock.

    On GPUs that is MMEngine's ``init_dist``. Without one it would call ``torch.cuda.set_device``, and pass
    ``device_ids`` to DDP, all the same: there the group is made with gloo, and DDP is configured without devices.

    Where the config has no ``model_wrapper_cfg`` of its own, gradients are views of DDP's buckets: they are there once.

    Raises:
        ValueError: If the launcher's variables are missing, or there are fewer GPUs than processes.
    """
    if cfg.launcher == 'none':
        return
    _set_rank_variables(cfg.launcher)
    _end_with_torchrun()
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        one_copy_ddp(), find_unused_parameters=cfg.get('find_unused_parameters', False)
    )
    cfg.model_wrapper_cfg = ConfigDict(wrapper)
    if torch.cuda.is_available():
        here = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
        if here > torch.cuda.device_count():
            raise ValueError(
                f'{here} processes were started on this machine, but '
                f'{torch.cuda.device_count()} GPUs are visible; start as many as there are GPUs'
            )
        env = cfg.get('env_cfg') or {}
        # MMEngine sets it to 'spawn' if nobody did before, and warns when the runner then sets that of the config.
        method = (env.get('mp_cfg') or {}).get('mp_start_method', 'fork')
        torch.multiprocessing.set_start_method(method, force=True)
        init_dist(cfg.launcher, **(env.get('dist_cfg') or dict(backend='nccl')))
        return
    # MMEngine passes it, and torch versions that do not know its successor need it.
    warnings.filterwarnings('ignore', '`broadcast_buffers` is deprecated', FutureWarning)
    seconds = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout', 1800)
    dist.init_process_group('gloo', timeout=datetime.timedelta(seconds=seconds))
    cfg.model_wrapper_cfg.device_ids = None


def one_copy_ddp() -> dict[str, Any]:
    """MMEngine's settings of DDP, but for gradients that are views of the buckets: 4 bytes less per parameter."""
    return dict(type='MMDistributedDataParallel', broadcast_buffers=False, gradient_as_bucket_view=True)


def on_main_process(function: Callable[[], Any]) -> Any:
    """Result of a function that the main process alone calls, in all processes.

    Raises:
        RuntimeError: In the other processes, if it failed; in the main one, its own error.
    """
    error, answer = None, [None, None]
    if get_rank() == 0:
        try:
            answer[0] = function()
        except Exception as own:
            error, answer[1] = own, f'{type(own).__name__}: {own}'
    broadcast_object_list(answer)
    if error is not None:
        raise error
    if answer[1] is not None:
        raise RuntimeError(f'the main process failed: {answer[1]}')
    return answer[0]


def world_size_of(launcher: str) -> int:
    """How many processes a launcher has started; known before they are connected."""
    name = _VARIABLES[launcher]['WORLD_SIZE'] if launcher in _VARIABLES else ''
    return int(os.environ.get(name, 1))


def _set_rank_variables(launcher: str) -> None:
    """Sets the variables of torchrun from those of slurm or MPI."""
    names = _VARIABLES[launcher]
    missing = [source for source in names.values() if source not in os.environ]
    if missing:
        raise ValueError(
            f'--launcher {launcher} expects the variable {missing[0]}, which is not set; start '
            'through tools/dist_train.sh, dist_test.sh, slurm_train.sh or slurm_test.sh'
        )
    os.environ.update({target: os.environ[source] for target, source in names.items()})
    # Jobs of slurm may share a machine.
    job = os.environ.get('SLURM_JOB_ID', '') if launcher == 'slurm' else ''
    os.environ.setdefault('MASTER_PORT', str(20000 + int(job) % 20000) if job.isdigit() else '29500')
    if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        hosts = ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']]
        os.environ['MASTER_ADDR'] = subprocess.check_output(hosts, text=True).split()[0]
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')


def _end_with_torchrun() -> None:
    """Has the kernel end this process when torchrun is killed.

    Otherwise it would train on unseen, into the same folder as the run that is resumed next.
    """
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        end_with_parent(signal.SIGKILL)
