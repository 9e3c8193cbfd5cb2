"""HTML elements whose texts and attributes are escaped by construction."""

import html
from collections.abc import Iterable

_VOID = {'meta', 'img', 'br', 'col'}


class Markup(str):
    """Text that is HTML already. Only `tag`, `join` and constants of this package make it."""


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element.

    Args:
        name: Of the element.
        children: `Markup` stays as it is, everything else becomes escaped text; None is left out.
        attributes: Escaped. A trailing or inner underscore stands for nothing or a hyphen (``class_``, ``data_value``);
            None and False leave the attribute out, True writes it without a value.
    """
    parts = [f'<{name}']
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip('_').replace('_', '-')
        parts.append(f' {key}' if value is True else f' {key}="{html.escape(str(value))}"')
    parts.append('>')
    if name not in _VOID:
        parts += [join(children), f'</{name}>']
    return Markup(''.join(parts))


def join(children: Iterable[object], between: str = '') -> Markup:
    """Children one after another; see `tag`."""
    texts = (child if isinstance(child, Markup) else html.escape(str(child)) for child in children if child is not None)
    return Markup(html.escape(between).join(texts))
