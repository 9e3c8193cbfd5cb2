"""A hook for test_mixed_training.py, which finds it on PYTHONPATH."""

from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class NoteSourcesHook(Hook):
    """Writes a line per iteration and process: its number and the datasets of its samples."""

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        paths = [Path(sample.img_path) for sample in data_batch['data_samples']]
        sources = ['vkitti2' if 'vkitti2' in path.parts else 'hypersim' for path in paths]
        sizes = {tuple(image.shape[1:]) for image in data_batch['inputs']}
        with Path(runner.work_dir, f'sources{get_rank()}.txt').open('a') as file:
            file.write(f'{runner.iter} {" ".join(sources)} {sorted(sizes)}\n')
