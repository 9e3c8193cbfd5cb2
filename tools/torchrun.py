"""torchrun (same arguments) that ends with the exit code of the failed process, not a traceback.

The error that stopped the process then stays the last thing on the screen.
"""

import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == '__main__':
    try:
        main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        print(f'process {rank} failed (exit code {failure.exitcode})', file=sys.stderr)
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)
