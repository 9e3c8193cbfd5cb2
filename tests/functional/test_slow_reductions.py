"""Reductions over the first axis that torch does one number at a time on a CPU: 10 to 100 times slower than by hand."""

import ast
from pathlib import Path

import pytest
import torch

from genseg_mm.functional.similarity_masks import any_along, true_places

PACKAGE = Path(__file__).parents[2] / 'genseg_mm'
# Sums, means, amin and amax of the first axis are fast.
SLOW = {'norm', 'vector_norm', 'std', 'var', 'any', 'all', 'argmin', 'argmax', 'min', 'max', 'median', 'cummax'}
FIRST = {0, -3}
# file -> reductions that may stay, and why
ALLOWED = {'functional/latent_statistics.py': ['std']}  # over the rows of a matrix, once in a fit


def is_first(node: ast.expr) -> bool:
    try:
        dim = ast.literal_eval(node)
    except ValueError:
        return False
    return bool(FIRST & set(dim)) if isinstance(dim, tuple) else type(dim) is int and dim in FIRST


def slow_reductions(code: str) -> list[str]:
    """Names of the slow reductions of tensors over the first axis (NumPy's are told by ``axis``)."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SLOW:
            is_function = 'torch' in ast.unparse(node.func.value).split('.')
            dims = [own.value for own in node.keywords if own.arg == 'dim'] + node.args[is_function:][:1]
            if any(map(is_first, dims)):
                found.append(node.func.attr)
    return found


def test_what_is_slow_is_seen():
    code = (
        'x.norm(dim=0); torch.linalg.vector_norm(x, dim=-3); m.any(0, keepdim=True); (a - b).std((0, 1)); x.argmin(0)'
    )
    assert slow_reductions(code) == ['norm', 'vector_norm', 'any', 'std', 'argmin']
    assert (
        slow_reductions('x.norm(dim=-1); x.sum(0); m.any(1); a.clamp(min=0); x.max(); max(0, 1); a.min(axis=0)') == []
    )


def test_no_slow_reduction_over_channels():
    found = {str(path.relative_to(PACKAGE)): slow_reductions(path.read_text()) for path in PACKAGE.rglob('*.py')}
    assert len(found) > 200
    assert {path: names for path, names in found.items() if names} == ALLOWED


@pytest.mark.parametrize('shape', [(3, 5, 7), (1, 4, 1), (0, 3, 4)])
@pytest.mark.parametrize('dim', [0, 1, 2])
def test_any_along_an_axis(shape, dim):
    masks = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.7
    found = any_along(masks, dim)
    assert found.dtype == torch.bool and torch.equal(found, masks.any(dim))


@pytest.mark.parametrize('size', [0, 1, 8, 61, 4096])
def test_true_places(size):
    for share in (0.0, 0.02, 0.6, 1.0):
        chosen = torch.rand(size, generator=torch.Generator().manual_seed(size)) < share
        assert torch.equal(true_places(chosen), chosen.nonzero()[:, 0])
