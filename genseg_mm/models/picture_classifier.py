"""A small classifier of pictures of single objects: whether a generated object is known again.

It is trained on pictures whose names are known, such as cut-outs on grounds, and asked about generated ones only when
it is frozen.
"""

import json
import os
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genseg_mm.files import parse_json
from genseg_mm.files.tensors import write_tensors

SIDE = 64  # of the pictures that it sees
WIDTHS = (32, 64, 128, 192)
FORMAT = 'genseg_mm picture classifier 1'


class PictureClassifier(nn.Module):
    """Names the object of a picture: transformers' ResNet with a block in each of four stages.

    Args:
        names: What there is, in the order of the classes.
        widths: Channels of the stages.

    Raises:
        ValueError: If there are fewer than two names, or two are alike.
    """

    def __init__(self, names: Sequence[str], widths: Sequence[int] = WIDTHS) -> None:
        from transformers import ResNetConfig, ResNetForImageClassification

        super().__init__()
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f'a classifier needs two or more different names, but got {list(names)[:5]}')
        self.names, self.widths = tuple(names), tuple(widths)
        config = ResNetConfig(
            embedding_size=widths[0],
            hidden_sizes=list(widths),
            depths=[1] * len(widths),
            layer_type='basic',
            num_labels=len(names),
        )
        self.network = ResNetForImageClassification(config)

    def forward(self, pictures: Tensor) -> Tensor:
        """Scores of the names, (N, K), for RGB pictures in [-1, 1], (N, 3, H, W)."""
        if tuple(pictures.shape[-2:]) != (SIDE, SIDE):
            pictures = F.interpolate(pictures, (SIDE, SIDE), mode='bilinear', antialias=True, align_corners=False)
        return self.network(pictures).logits

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]], num_updates: int, lr: float = 3e-3) -> 'PictureClassifier':
        """Trains it with AdamW and one cycle of the learning rate, then freezes it.

        Args:
            batches: Pictures (N, 3, H, W), numbers of their names (N,); at least ``num_updates`` of them.
            num_updates: Batches to take.
            lr: Largest learning rate.
        """
        optimizer = torch.optim.AdamW(self.parameters(), lr=lr, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=num_updates, pct_start=0.2)
        self.train()
        for (pictures, labels), _ in zip(batches, range(num_updates), strict=False):
            optimizer.zero_grad()
            F.cross_entropy(self(pictures), labels, label_smoothing=0.05).backward()
            optimizer.step()
            schedule.step()
        return self.eval().requires_grad_(False)

    @torch.no_grad()
    def ranks(self, pictures: Tensor, labels: Tensor) -> Tensor:
        """Place of the right name among all, (N,); 0 is the classifier's first choice.

        Args:
            pictures: RGB in [-1, 1], (N, 3, H, W).
            labels: Numbers of the right names, (N,).

        Raises:
            RuntimeError: If it is not trained yet, or still being trained.
        """
        if self.training:
            raise RuntimeError('the classifier is asked before it is trained: call fit, or load one')
        scores = torch.cat([self(part) for part in pictures.split(100)]) if len(pictures) else torch.zeros(0, 1)
        return (scores > scores.gather(1, labels[:, None])).sum(1)

    def save(self, path: str | os.PathLike) -> None:
        """Writes it to a safetensors file, with its names."""
        about = json.dumps(dict(format=FORMAT, names=self.names, widths=self.widths))
        write_tensors(path, self.state_dict(), {'about': about})

    @classmethod
    def load(cls, path: str | os.PathLike) -> 'PictureClassifier':
        """Reads one that :meth:`save` wrote, frozen.

        Raises:
            ValueError: If the file is another one.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, 'pt') as file:
                about = parse_json((file.metadata() or {}).get('about', '{}'), os.fspath(path))
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f'{path}: expected a classifier of pictures, but got {error}') from error
        if about.get('format') != FORMAT:
            raise ValueError(f'{path}: expected a classifier of pictures ({FORMAT}), but got another file')
        classifier = cls(about['names'], about['widths'])
        classifier.load_state_dict(state)
        return classifier.eval().requires_grad_(False)


def top_shares(ranks: Tensor) -> dict[str, float]:
    """Shares in % whose right name comes first, and among the first five."""
    return {f'top {most}': 100 * float((ranks < most).float().mean()) for most in (1, 5)}
