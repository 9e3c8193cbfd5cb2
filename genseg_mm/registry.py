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
MODEL_WRAPPERS = _child('model wrapper', 'MODEL_WRAPPERS', 'models')
WEIGHT_INITIALIZERS = _child('weight initializer', 'WEIGHT_INITIALIZERS', 'models')
TASK_UTILS = _child('task util', 'TASK_UTILS', 'models')
DATASETS = _child('dataset', 'DATASETS', 'datasets')
DATA_SAMPLERS = _child('data sampler', 'DATA_SAMPLERS', 'datasets')
TRANSFORMS = _child('transform', 'TRANSFORMS', 'datasets')
METRICS = _child('metric', 'METRICS', 'evaluation')
EVALUATOR = _child('evaluator', 'EVALUATOR', 'evaluation')
HOOKS = _child('hook', 'HOOKS', 'hooks')
VISUALIZERS = _child('visualizer', 'VISUALIZERS', 'hooks')
VISBACKENDS = _child('vis_backend', 'VISBACKENDS', 'hooks')
LOG_PROCESSORS = _child('log processor', 'LOG_PROCESSORS', 'hooks')
OPTIMIZERS = _child('optimizer', 'OPTIMIZERS', 'optim')
OPTIM_WRAPPERS = _child('optim wrapper', 'OPTIM_WRAPPERS', 'optim')
OPTIM_WRAPPER_CONSTRUCTORS = _child('optimizer wrapper constructor', 'OPTIM_WRAPPER_CONSTRUCTORS', 'optim')
PARAM_SCHEDULERS = _child('parameter scheduler', 'PARAM_SCHEDULERS', 'optim')
LOOPS = _child('loop', 'LOOPS', 'launch.evaluation_loops', 'launch.update_based_train_loop', 'benchmarking.loop')
STRATEGIES = _child('strategy', 'STRATEGIES', 'sharding')
RUNNERS = _child('runner', 'RUNNERS', 'launch.runner')


def class_name(kind: str | type | None) -> str:
    """Name of the class that a config's ``type`` means, without its scope; '' where it has none."""
    if isinstance(kind, str):
        return kind.rpartition('.')[2]
    return '' if kind is None else kind.__name__
