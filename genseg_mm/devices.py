"""Devices that models run on."""

import torch
from mmengine.device import get_device
from torch import nn


def checked_device(device: str | torch.device | None) -> torch.device:
    """The device, the best there is for None.

    Raises:
        ValueError: If there is none of this name here.
    """
    try:
        device = torch.device(get_device() if device is None else device)
    except RuntimeError as error:
        raise ValueError(f'device must be such as cpu or cuda:0, but got {device!r}') from error
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f'device {device} is not here: {torch.cuda.device_count()} GPUs are visible; use cpu')
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without this kind
        reason = str(error).partition('\n')[0]
        raise ValueError(f'device {device} cannot be used here ({reason}); use cpu') from error
    return device


def device_of(model: nn.Module) -> torch.device:
    """The device that a model is on; the CPU if it holds nothing, such as a control map.

    That of what is trained in it: frozen parts may wait elsewhere; of shards that wait on the host, the one that they
    are gathered on.
    """
    tensor = next((own for own in model.parameters() if own.requires_grad), next(model.parameters(), None))
    tensor = next(model.buffers(), None) if tensor is None else tensor
    if tensor is None:
        return torch.device('cpu')
    mesh = getattr(tensor, 'device_mesh', None)
    if mesh is not None and mesh.device_type != tensor.device.type:  # FSDP2's shards, kept on the host
        return torch.device(mesh.device_type)
    return tensor.device
