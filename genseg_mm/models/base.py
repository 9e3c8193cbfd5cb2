"""What both papers' models share at training: logged losses that are true for all ranks, and frozen parts."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.dist import all_reduce
from mmengine.model import BaseModel
from torch import Tensor, nn

from genseg_mm.models.mmseg_api import MMSegApiMixin


class GenSegModel(MMSegApiMixin, BaseModel):
    """BaseModel whose logged losses are means over all ranks (MMEngine logs those of rank 0 alone)."""

    def parse_losses(self, losses: dict[str, Tensor | list[Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
        """Sums the losses for the backward pass and averages their logged values over ranks.

        Args:
            losses: Scalars or lists of scalars by name; names with 'loss' in them are summed. Every rank must give the
                same names. With ``num_samples_<task>``, the samples of each task in the batch of this rank, the
                ``TaskLogProcessor`` logs ``loss_<task>`` as a mean over them.

        Returns:
            The loss of this rank, and the values to log (detached, the same on every rank): means over all samples,
            and sums of ``num_samples_<task>``.
        """
        loss, log_vars = super().parse_losses(losses)
        values = torch.stack([value.detach().float() for value in log_vars.values()])
        is_count = torch.tensor([name.startswith('num_samples_') for name in log_vars])
        if not is_count.any():
            all_reduce(values, op='mean')
            return loss, OrderedDict(zip(log_vars, values, strict=True))
        is_count = is_count.to(values.device)
        weighted = torch.where(is_count, values, values * values[is_count].sum())
        all_reduce(weighted, op='sum')
        values = torch.where(is_count, weighted, weighted / weighted[is_count].sum())
        return loss, OrderedDict(zip(log_vars, values, strict=True))


def freeze(module: nn.Module, has_source: bool) -> nn.Module:
    """Freezes a pretrained part in place.

    Args:
        module: Part to freeze; its parameters stop requiring gradients and it goes to eval mode (its owner keeps it
            there, see :class:`FrozenPartsMixin`).
        has_source: Whether the part is built again from its own source (a released folder or hub id). Then it is left
            out of checkpoints, and loading one keeps the values it was built with.

    Returns:
        The same module.
    """
    module.requires_grad_(False).eval()
    if has_source:
        module._register_state_dict_hook(_drop_own_state)
        module.register_load_state_dict_pre_hook(_keep_own_state)
    return module


@contextmanager
def frozen_pass(device: torch.device) -> Iterator[None]:
    """Runs a frozen part without a graph, in the precision that it was loaded in.

    Autocast is off, so that training sees the very encodings of a cache and of evaluation.

    Args:
        device: That the part is on.
    """
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def _drop_own_state(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    if prefix:  # the part's own state_dict, such as save_pretrained asks for, stays whole
        for key in [key for key in state_dict if key.startswith(prefix)]:
            del state_dict[key]


def _keep_own_state(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    for child_name, child in module.named_modules():
        child_prefix = f'{child_name}.' if child_name else ''
        own = dict(child.named_parameters(recurse=False))
        own |= {
            name: buffer
            for name, buffer in child.named_buffers(recurse=False)
            if name not in child._non_persistent_buffers_set
        }
        for name, value in own.items():
            state_dict.setdefault(f'{prefix}{child_prefix}{name}', value)


class FrozenPartsMixin:
    """Keeps the parts named in ``frozen_parts`` in eval mode whatever mode the owner is in."""

    frozen_parts: tuple[str, ...] = ()

    def train(self, mode: bool = True) -> 'FrozenPartsMixin':
        super().train(mode)
        for name in self.frozen_parts:
            getattr(self, name).eval()
        return self


def is_pretrained_config(config: dict | nn.Module) -> bool:
    """Whether a part's config builds it from a released folder, file or hub id."""
    if isinstance(config, nn.Module):
        return False
    kind = config['type']
    name = kind if isinstance(kind, str) else getattr(kind, '__qualname__', '')
    return name.endswith(('from_pretrained', 'from_single_file'))
