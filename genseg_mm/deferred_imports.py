"""An import of MMEngine's, put off until a config asks for it: what needs no transformers starts in half the time.

Whenever ``mmengine.optim`` is imported, which every model and runner does, it asks transformers for ``Adafactor``, and
that module imports Peft with all the language models that Peft knows.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_BUILDER = 'mmengine.optim.optimizer.builder'


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


class DeferredImports(MetaPathFinder):
    """Finds that one module, and leaves every other one to those that come after it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _BUILDER:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return None
        spec.loader = _BuilderLoader(fullname, spec.loader.path)
        return spec


def install() -> None:
    """Puts the import off in this process, unless it has been made."""
    if _BUILDER not in sys.modules:
        sys.meta_path.insert(0, DeferredImports())
