"""Small parts for the tests of runner and tools, used by tests/data/toy_config.py."""

import copy
import itertools
import random
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.dist import all_reduce
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.structures import BaseDataElement, PixelData
from torch import nn

from genseg_mm.launch import SafeFlexibleRunner, SafeRunner
from genseg_mm.launch.processes import connect_processes

CONFIG = Path(__file__).parent / 'data' / 'toy_config.py'
_numbers = itertools.count()


def toy_runner(work_dir: Path, options: dict | None = None, **changes) -> SafeRunner:
    """A runner of the toy config in this process.

    Args:
        work_dir: Where it writes.
        options: As for --cfg-options.
        **changes: Top-level keys to set; with ``strategy``, a runner of that.
    """
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(copy.deepcopy(options or {}))  # it takes `_delete_` out of them
    # Message hubs are global and found by name, which has a resolution of one second.
    cfg.update(work_dir=str(work_dir), launcher='none', experiment_name=f'toy{next(_numbers)}')
    cfg.update(log_level='WARNING', **changes)
    if 'strategy' in cfg:
        connect_processes(cfg)
        return SafeFlexibleRunner.from_cfg(cfg)
    return SafeRunner.from_cfg(cfg)


@DATASETS.register_module()
class ToyDataset(BaseDataset):
    """Bright squares on noise, which is drawn anew at each visit; the item ``broken`` fails.

    With ``jitter``, a pixel is drawn from each of the global generators, as transforms of others do.
    """

    METAINFO = dict(classes=('background', 'square'))

    def __init__(self, num_samples: int = 24, broken: int = -1, seed: int = 0, jitter: bool = False, **kwargs) -> None:
        self.num_samples, self.broken, self.seed = num_samples, broken, seed
        self.jitter = jitter
        super().__init__(serialize_data=False, **kwargs)

    def load_data_list(self) -> list[dict]:
        return [dict(number=number) for number in range(self.num_samples)]

    def prepare_data(self, idx: int) -> dict:
        if idx == self.broken:
            raise FileNotFoundError(f'picture_{int(idx)}.png is missing')
        visit = getattr(idx, 'visit', 0)
        noise = np.random.default_rng([self.seed, int(idx), visit])
        image = noise.integers(0, 100, (3, 16, 16), dtype=np.uint8)
        if self.jitter:
            draws = np.random.rand(), random.random(), torch.rand(1).item()
            image[0, 0, :3] = [int(256 * draw) for draw in draws]
        mask = np.zeros((1, 16, 16), dtype=np.uint8)
        top, left = 1 + idx % 5, 1 + idx % 7
        mask[:, top : top + 8, left : left + 8] = 1
        image += 120 * mask
        sample = BaseDataElement(
            metainfo=dict(ori_shape=(16, 16), text=f'square {int(idx)}', sample_idx=idx),
            gt_sem_seg=PixelData(data=torch.from_numpy(mask)),
        )
        return dict(inputs=torch.from_numpy(image), data_samples=sample)


@MODELS.register_module()
class ToyModel(BaseModel):
    """Two convolutions; the loss adds noise drawn from (iteration, sample), as diffusion models do.

    Args:
        ballast: Length of an unused buffer, to make checkpoints large.
        blow_up_at: Iteration whose loss becomes NaN.
        dropout: Share of the features that training drops.
    """

    def __init__(self, channels: int = 4, ballast: int = 1, blow_up_at: int = -1, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(channels)
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, 1, 1)
        self.dropout = nn.Dropout(dropout)
        self.blow_up_at = blow_up_at
        self.register_buffer('ballast', torch.zeros(ballast))

    def forward(self, inputs: list, data_samples: list, mode: str = 'tensor') -> dict | list:
        images = torch.stack([image.float() for image in inputs]) / 255
        if mode == 'loss':
            return self._loss(images, data_samples)
        logits = self.last(torch.relu(self.first(images)))
        for sample, logit in zip(data_samples, logits, strict=True):
            sample.pred_sem_seg = PixelData(data=(logit > 0).to(torch.uint8))
        return data_samples

    def _loss(self, images: torch.Tensor, data_samples: list) -> dict:
        iteration = MessageHub.get_current_instance().get_info('iter', 0)
        noise = []
        for sample in data_samples:
            generator = torch.Generator().manual_seed(1000 * iteration + int(sample.sample_idx))
            noise.append(torch.randn(images.shape[1:], generator=generator))
        features = torch.relu(self.first(images + 0.1 * torch.stack(noise)))
        logits = self.last(self.dropout(features))
        masks = torch.stack([sample.gt_sem_seg.data for sample in data_samples]).float()
        loss = nn.functional.binary_cross_entropy_with_logits(logits, masks)
        return dict(loss=loss * float('nan') if iteration == self.blow_up_at else loss)

    def parse_losses(self, losses: dict) -> tuple[torch.Tensor, dict]:
        loss, log_vars = super().parse_losses(losses)
        for name, value in log_vars.items():
            value = value.detach().clone()
            all_reduce(value, op='mean')
            log_vars[name] = value
        return loss, log_vars


@METRICS.register_module()
class ToyIoU(BaseMetric):
    """IoU over all samples, in percent; key ``toy/oIoU``."""

    default_prefix = 'toy'

    def process(self, data_batch: dict, data_samples: list) -> None:
        for sample in data_samples:
            truth = sample['gt_sem_seg']['data'].bool()
            predicted = sample['pred_sem_seg']['data'].bool()
            self.results.append((int((truth & predicted).sum()), int((truth | predicted).sum())))

    def compute_metrics(self, results: list) -> dict:
        intersections, unions = np.sum(results, axis=0)
        return dict(oIoU=100 * intersections / max(unions, 1), num_samples=len(results))
