"""What other packages do at import, mended: transformers is put off, and nobody reads of packages that nobody needs.

Whenever ``mmengine.optim`` is imported, which every model and runner does, it asks transformers for ``Adafactor``, and
that module imports Peft with all the language models that Peft knows. OneDL's builds of MMDetection and MMSegmentation
print that OneDL's own package is not there, wherever their datasets are imported.
"""

import logging
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_BUILDER = 'mmengine.optim.optimizer.builder'
_TALKATIVE = ('mmdet.datasets', 'mmdet.datasets.transforms', 'mmseg.datasets', 'mmseg.datasets.transforms')


def Adafactor(params: Any, **settings: Any) -> Any:
    """transformers' optimizer."""
    from transformers import Adafactor as Optimizer

    return Optimizer(params, **settings)


class _BuilderLoader(SourceFileLoader):
    """Loads MMEngine's registration of optimizers, whose ``from transformers import Adafactor`` finds the one above."""

    def exec_module(self, module: ModuleType) -> None:
        loaded = sys.modules.get('transformers')
        sys.modules['transformers'] = stand_in = ModuleType('transformers')
        stand_in.Adafactor = Adafactor
        try:
            super().exec_module(module)
        finally:
            del sys.modules['transformers']
            if loaded is not None:
                sys.modules['transformers'] = loaded


class _QuietLoader(SourceFileLoader):
    """Loads a package whose debug messages have no logger: ``print_log`` prints those, whatever their level."""

    def exec_module(self, module: ModuleType) -> None:
        from mmengine import logging as of_mmengine

        print_log = of_mmengine.print_log

        def print_no_debugging(message: Any, logger: Any = None, level: int = logging.INFO) -> None:
            if logger is not None or level > logging.DEBUG:
                print_log(message, logger, level)

        of_mmengine.print_log = print_no_debugging
        try:
            super().exec_module(module)
        finally:
            of_mmengine.print_log = print_log


_LOADERS = {
    _BUILDER: _BuilderLoader,
    **dict.fromkeys(_TALKATIVE, _QuietLoader),
}


class DeferredImports(MetaPathFinder):
    """Finds these modules, and leaves every other one to those that come after it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _LOADERS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return None
        spec.loader = _LOADERS[fullname](fullname, spec.loader.path)
        return spec


def install() -> None:
    """Has this process import these modules so, unless they are there already."""
    if not any(isinstance(finder, DeferredImports) for finder in sys.meta_path):
        sys.meta_path.insert(0, DeferredImports())
