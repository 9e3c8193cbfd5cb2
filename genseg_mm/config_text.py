"""The text of a config, laid out at once: yapf takes a tenth of a second for it, and seconds for a large one."""

import ast

from mmengine.config import Config

WIDTH = 120
_INDENT = 4
_unlaid = Config.pretty_text.fget


def install() -> None:
    """Has every config of this process be laid out by :func:`lay_out`."""
    Config.pretty_text = property(_pretty_text)


def _pretty_text(cfg: Config) -> str:
    wanted = cfg._format_python_code
    object.__setattr__(cfg, '_format_python_code', False)  # Config's own would make it a key
    try:
        text = _unlaid(cfg)
    finally:
        object.__setattr__(cfg, '_format_python_code', wanted)
    return lay_out(text) if wanted else text


def lay_out(text: str) -> str:
    """Assignments of plain values laid out in lines of at most ``WIDTH`` characters, as far as values can be split.

    A dict, list or tuple that fits into its line stays in one; of any other, each entry begins a line. Infinity and NaN
    become calls, since a config that names them as Python prints them cannot be read. A dict without a name, which is
    what MMEngine writes of a single key that is none, stays one.

    Raises:
        SyntaxError: If it is no Python; with the message of MMEngine.
    """
    try:
        body = ast.parse(text).body
    except SyntaxError as error:
        raise SyntaxError(f'Failed to format the config file, please check the syntax of: \n{text}') from error
    lines = []
    for own in body:
        own = _Numbers().visit(own)
        if isinstance(own, ast.Expr):
            lines.append(_value(own.value, 0, 0) + '\n')
            continue
        name = ast.unparse(own.targets[0])
        lines.append(f'{name} = {_value(own.value, 0, len(name) + 2)}\n')  # no comma ends it
    return ''.join(lines)


class _Numbers(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        if isinstance(node.ctx, ast.Load) and node.id in ('inf', 'nan'):
            return ast.Call(ast.Name('float'), [ast.Constant(node.id)], [])
        return node


def _value(node: ast.expr, indent: int, column: int) -> str:
    """A value that begins in this column of a line with this indent, and has a comma behind it."""
    flat = ast.unparse(node)
    if column + len(flat) < WIDTH:
        return flat
    match node:
        case ast.Call(func=ast.Name(id='dict'), args=[ast.Dict() as own]):  # not all keys are names
            brackets, entries = ('dict({', '})'), _pairs(own)
        case ast.Call(func=ast.Name(id='dict'), args=[]):
            brackets, entries = ('dict(', ')'), [(f'{own.arg}=', own.value) for own in node.keywords]
        case ast.Dict():
            brackets, entries = '{}', _pairs(node)
        case ast.List():
            brackets, entries = '[]', [('', own) for own in node.elts]
        case ast.Tuple():
            brackets, entries = '()', [('', own) for own in node.elts]
        case _:
            return flat
    inner = indent + _INDENT
    lines = [f'{" " * inner}{name}{_value(own, inner, inner + len(name))},\n' for name, own in entries]
    return f'{brackets[0]}\n{"".join(lines)}{" " * indent}{brackets[1]}'


def _pairs(node: ast.Dict) -> list[tuple[str, ast.expr]]:
    return [(f'{ast.unparse(key)}: ', own) for key, own in zip(node.keys, node.values, strict=True)]
