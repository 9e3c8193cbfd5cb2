"""Items that measure how their process has its memory; of a file of their own, which little is imported for."""

import resource

import numpy as np

from genseg_mm.datasets.seeded_access import SeededAccess


class LargeItems:
    """Its items are how many page faults this process has had, after three arrays of 4 MB were made and freed."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> int:
        if index >= len(self):
            raise IndexError(index)
        arrays = [np.full(2**20, index, np.int32) for _ in range(3)]
        del arrays
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


class LargeItemsByVisit(SeededAccess, LargeItems):
    pass
