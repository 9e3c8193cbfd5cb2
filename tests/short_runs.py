"""What makes runs of tools in tests short: forks that need not import everything again, few samples."""

import os
import runpy
import sys
import traceback
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).parents[1]


def run_forked(tool: str, *arguments: object, cwd: Path) -> None:
    """Runs a tool as a script in a fork of this process, and checks that it ends well.

    What was imported here is there already: starting anew costs a tool more than the few iterations of a test.

    Args:
        tool: Path below tools/.
        arguments: Of the command line.
        cwd: Its working directory, where ``<tool>.log`` takes its output.
    """
    path = ROOT / 'tools' / tool
    log = cwd / f'{path.stem}.log'
    child = os.fork()
    if not child:
        code = 1
        try:
            with log.open('w') as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            # What pytest put in place of them would keep the lines.
            sys.stdout, sys.stderr = os.fdopen(1, 'w'), os.fdopen(2, 'w')
            os.chdir(cwd)
            sys.argv = [str(path), *map(str, arguments)]
            runpy.run_path(str(path), run_name='__main__')
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f'{tool} ended with {status}: {log.read_text()[-3000:]}'


def small_data(cfg: Config, splits: tuple[str, ...] = ('val', 'test')) -> list[str]:
    """Options for a handful of procedural scenes in the loaders of these splits."""
    changes = []
    for split in splits:
        dataset = cfg.get(f'{split}_dataloader').dataset
        parts = {f'datasets.{i}.': one for i, one in enumerate(dataset.get('datasets', []))} or {
            '': dataset
        }
        for key, part in parts.items():
            if part.type.endswith('ShapesDataset'):
                changes.append(f'{split}_dataloader.dataset.{key}num_scenes=2')
    return changes
