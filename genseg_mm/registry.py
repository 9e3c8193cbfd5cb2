"""Child registries of MMEngine's, scope ``genseg_mm``.

MMEngine resolves a type such as ``'genseg_mm.GenMask'`` in any config by importing ``genseg_mm.registry`` and then the
``locations`` named here, so a config needs no ``custom_imports`` to use our parts.
"""

from mmengine import registry as mmengine_registry
from mmengine.registry import Registry


def _child(name: str, parent: str, *locations: str) -> Registry:
    return Registry(
        name,
        parent=getattr(mmengine_registry, parent),
        scope='genseg_mm',
        locations=[f'genseg_mm.{location}' for location in locations],
    )


MODELS = _child('model', 'MODELS', 'models')
TASK_UTILS = _child('task util', 'TASK_UTILS', 'models')
DATASETS = _child('dataset', 'DATASETS', 'datasets')
DATA_SAMPLERS = _child('data sampler', 'DATA_SAMPLERS', 'datasets')
TRANSFORMS = _child('transform', 'TRANSFORMS', 'datasets')
METRICS = _child('metric', 'METRICS', 'evaluation')
HOOKS = _child('hook', 'HOOKS', 'hooks')
OPTIM_WRAPPERS = _child('optim wrapper', 'OPTIM_WRAPPERS', 'optim')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    'optim wrapper constructor', 'OPTIM_WRAPPER_CONSTRUCTORS', 'optim'
)
