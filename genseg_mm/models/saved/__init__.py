"""Models as folders that anybody opens: ``config.json``, safetensors, a model card; nothing in them runs code."""

from genseg_mm.models.saved.folder import SavedModel, load_saved

__all__ = ['SavedModel', 'load_saved']
