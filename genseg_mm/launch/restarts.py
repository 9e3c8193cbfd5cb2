"""Trainings that start again by themselves: by torchrun after a failure (``--max-restarts``), by slurm (requeue)."""

import json
import os
from pathlib import Path

from mmengine.config import Config

from genseg_mm.checkpoint import checkpoints_of, find_resumable
from genseg_mm.files import read_json_dict, whole_file
from genseg_mm.launch.processes import on_main_process

# What was in the work dir before the first start: not of this training.
_BEFORE = '.before_restarts.json'


def resume_after_restart(cfg: Config) -> None:
    """Has a training that was started again go on from the newest whole checkpoint that it has written.

    Where it has written none yet, it starts as it was asked to, with or without ``--resume``. Checkpoints that an
    earlier training left in the work dir are not its own.

    Args:
        cfg: Config of a training; changed in place. The processes are joined, and the work dir is locked.
    """
    run, count = _run(cfg.get('launcher'))
    if run is None:
        return
    work_dir = Path(cfg.work_dir)
    if count == 0:
        on_main_process(lambda: _note(work_dir, run))
        return
    found = on_main_process(lambda: _newest_own(work_dir, run))
    if found is not None:
        cfg.resume, cfg.load_from = True, found


def _run(launcher: str | None) -> tuple[str | None, int]:
    """What the job is called over all of its starts, and how often it was started again; None if it never will be."""
    get = os.environ.get
    if int(get('TORCHELASTIC_MAX_RESTARTS', 0)) > 0:
        return get('TORCHELASTIC_RUN_ID', ''), int(get('TORCHELASTIC_RESTART_COUNT', 0))
    if launcher == 'slurm' and 'SLURM_JOB_ID' in os.environ:
        return f'slurm {get("SLURM_JOB_ID")}', int(get('SLURM_RESTART_COUNT', 0))
    return None, 0


def _note(work_dir: Path, run: str) -> None:
    with whole_file(work_dir / _BEFORE) as temporary:
        temporary.write_text(json.dumps(dict(run=run, checkpoints=_states(work_dir))))


def _newest_own(work_dir: Path, run: str) -> str | None:
    note = work_dir / _BEFORE
    noted = read_json_dict(note) if note.is_file() else {}
    if noted.get('run') != run:  # it failed before it got to that
        return None
    before = noted['checkpoints']
    return find_resumable(str(work_dir), [path for path, time in _states(work_dir).items() if time == before.get(path)])


def _states(work_dir: Path) -> dict[str, int]:
    return {path: os.stat(path).st_mtime_ns for path in checkpoints_of(work_dir)}
