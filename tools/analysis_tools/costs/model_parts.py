"""The parts of a model: their parameters, and the methods in which a prediction spends its time."""

from typing import Any

from torch import nn

REST = 'rest'


def parameters(model: nn.Module) -> list[dict[str, Any]]:
    """Rows ``part``, ``type``, ``total``, ``trainable``, ``frozen``, one per part.

    Parts are the model's children and, of a colorer, its own; children that store nothing are left out, and such as
    PatchCodec, whose matrices are buffers, have 0. A parameter that two parts share is counted once, for the first.
    """
    rows, seen = [], set()
    for name, part in _parts(model):
        own = [one for one in part.parameters() if id(one) not in seen]
        seen |= {id(one) for one in own}
        trainable = sum(one.numel() for one in own if one.requires_grad)
        total = sum(one.numel() for one in own)
        only_buffers = part.state_dict() and not any(True for _ in part.parameters())
        if total or only_buffers:
            rows.append(
                dict(
                    part=name,
                    type=type(_inner(part)).__name__,
                    total=total,
                    trainable=trainable,
                    frozen=total - trainable,
                )
            )
    return rows


def _parts(model: nn.Module) -> list[tuple[str, nn.Module]]:
    parts: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        if name == 'colorer' and len(list(child.children())) > 1:
            parts += [(f'colorer.{own}', module) for own, module in child.named_children()]
        parts.append((name, child))
    return [*parts, ('own', model)]  # after the parts, so that only what they leave counts


def _inner(part: nn.Module) -> nn.Module:
    """The network in a part that holds just one."""
    children = list(part.children())
    own = any(True for _ in part.parameters(recurse=False))
    return children[0] if len(children) == 1 and not own else part


def phases(model: nn.Module) -> list[tuple[Any, str, str]]:
    """Owner, method and name of each phase of a prediction, in order.

    GenMask: encode, prompt, denoise, decode, masks. Gen2Seg: encode, denoise, decode with Stable Diffusion, colorer
    (all, or what is left of it), prompting (points, boxes or automatic instances). Other models: their children.
    """
    if hasattr(model, 'mask_head') and hasattr(model, 'backbone'):
        return [
            (model.codec, 'encode', 'encode'),
            (model.prompt_encoder, 'forward', 'prompt'),
            (model.backbone, 'forward', 'denoise'),
            (model.mask_head, 'latents_to_grey', 'decode'),
            (model.mask_head, 'grey_to_logits', 'masks'),
        ]
    if hasattr(model, 'colorer'):
        found = colorer_phases(model.colorer)
        found += [(model, name, 'prompting') for name in ('prompt', 'automatic_instances')]
        return [own for own in found if hasattr(own[0], own[1])]
    return [(child, 'forward', name) for name, child in model.named_children() if name != 'data_preprocessor']


def colorer_phases(colorer: nn.Module) -> list[tuple[Any, str, str]]:
    """The phases inside of a colorer, and itself."""
    found: list[tuple[Any, str, str]] = []
    if hasattr(colorer, 'codec') and hasattr(colorer, 'unet'):
        found += [
            (colorer.codec, 'encode', 'encode'),
            (colorer.unet, 'forward', 'denoise'),
            (colorer.codec, 'decode', 'decode'),
        ]
    return [*found, (colorer, 'forward', 'colorer')]
