"""Pairs of centres and points: hand-worked sums, gradients, the compiled kernel, segment sums."""

import warnings

import pytest
import torch
from peak_memory import memory_now, peak_since

from genseg_mm.functional import inverse_distance
from genseg_mm.functional.instance_coloring import SegmentSums
from genseg_mm.functional.inverse_distance import InverseDistanceSum, inverse_distance_sum

# Image 0: points (0,0,0), (1,0,0), (3,0,0) of centres 0, 1 and none; image 1 has no centre.
POINTS = torch.tensor([[[0.0, 1, 3], [0, 0, 0], [0, 0, 0]], [[9.0, 9, 9]] * 3]).double()
CENTRES = torch.tensor([[0.0, 0, 0], [1, 0, 2]]).double()
OWN = torch.tensor([[0, 1, 7], [2, 2, 2]])
WEIGHT = torch.tensor([1.0, 10]).double()
SPANS = [(0, 2), (2, 2)]
# Centre 0 sees the points at d^2 = 1, 9; centre 1 those at d^2 = 5, 8.
VALUE = 1 / 2 + 1 / 10 + 10 * (1 / 6 + 1 / 9)


@pytest.fixture(params=['tiles', 'fused'])
def kind(request, monkeypatch):
    """Both ways through the pairs; the fused one as torch would compile it, but not compiled."""
    monkeypatch.setattr(inverse_distance, 'compiled_sums', lambda *_: inverse_distance._sums)
    return {'compiled': request.param == 'fused'}


def test_value_and_gradients_by_hand(kind):
    value, by_points, by_centres = inverse_distance_sum(POINTS, CENTRES, OWN, WEIGHT, SPANS, **kind)
    assert value.item() == pytest.approx(VALUE, rel=1e-15)
    # d/dp of 1 / (1 + |p - c|^2) is -2 (p - c) / (1 + d^2)^2, here times the weight.
    first = [20 / 36, 0, 40 / 36]  # from centre 1: p - c = (-1, 0, -2)
    second = [-2 / 4, 0, 0]  # from centre 0
    third = [-6 / 100 - 40 / 81, 0, 40 / 81]  # from both: p - c = (3, 0, 0) and (2, 0, -2)
    expected = torch.tensor([first, second, third], dtype=torch.float64).T
    torch.testing.assert_close(by_points[0], expected, rtol=1e-14, atol=1e-15)
    assert by_points[1].abs().max() == 0
    to_first = [2 / 4 + 6 / 100, 0, 0]
    to_second = [-20 / 36 + 40 / 81, 0, -40 / 36 - 40 / 81]
    expected = torch.tensor([to_first, to_second], dtype=torch.float64)
    torch.testing.assert_close(by_centres, expected, rtol=1e-14, atol=1e-15)


def test_without_gradients_the_value_is_the_same(kind):
    value, *grads = inverse_distance_sum(POINTS, CENTRES, OWN, WEIGHT, SPANS, with_grad=False, **kind)
    assert grads == [None, None] and value.item() == pytest.approx(VALUE, rel=1e-15)


def random_pairs(num_centres, num_points, dtype=torch.float64, spread=60.0):
    generator = torch.Generator().manual_seed(num_centres + num_points)
    points = 120 + spread * torch.randn(1, 3, num_points, generator=generator).to(dtype)
    centres = (120 + spread * torch.randn(num_centres, 3, generator=generator)).double()
    own = torch.randint(-2, num_centres + 3, (1, num_points), generator=generator)
    weight = torch.rand(num_centres, generator=generator).double()
    return points, centres, own, weight, [(0, num_centres)]


def plain_sum(points, centres, own, weight, spans):
    """The same with all pairs in memory and autograd."""
    points, centres = (x.detach().double().clone().requires_grad_() for x in (points, centres))
    closeness = 1 / (1 + (points[0] - centres[:, :, None]).square().sum(1))  # (n, P)
    closeness = closeness.masked_fill(own == torch.arange(len(centres))[:, None], 0.0)
    value = (weight[:, None] * closeness).sum()
    return value.detach(), *torch.autograd.grad(value, (points, centres))


# One centre, fewer points than a row, a row and a bit, whole rows, more centres than a tile has.
@pytest.mark.parametrize('sizes', [(1, 5), (1, 5000), (3, 4096), (7, 8192), (40, 4097), (300, 90)])
def test_equals_the_plain_sum(kind, sizes):
    for spread in (60.0, 0.5):
        pairs = random_pairs(*sizes, spread=spread)
        for result, expected in zip(inverse_distance_sum(*pairs, **kind), plain_sum(*pairs), strict=True):
            tolerance = 1e-14 if kind['compiled'] else 2e-12
            assert (result - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize('sizes', [(3, 5000), (40, 20000)])
def test_float32_loses_few_digits(kind, sizes):
    """The tiles' gradients are differences of sums and lose more with centres far apart."""
    for spread in (60.0, 0.5):
        pairs = random_pairs(*sizes, dtype=torch.float32, spread=spread)
        value, *grads = inverse_distance_sum(*pairs, **kind)
        expected, *expected_grads = plain_sum(*pairs)
        assert value.item() == pytest.approx(expected.item(), rel=2e-7)
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            tolerance = 3e-7 if kind['compiled'] or spread < 1 else 1e-4
            assert (grad - expected_grad).norm() <= tolerance * expected_grad.norm()


def test_sums_without_a_matmul_are_the_same():
    generator = torch.Generator().manual_seed(0)
    kernel = torch.rand(5, 7, dtype=torch.float64, generator=generator)
    for dim in (0, 1):
        vectors = torch.rand(4, kernel.shape[dim], dtype=torch.float64, generator=generator)
        by_matmul = inverse_distance._sums_by_matmul(kernel, vectors, dim, torch.empty_like(kernel))
        products = inverse_distance._sums_by_products(kernel, vectors, dim, torch.empty_like(kernel))
        torch.testing.assert_close(products, by_matmul, rtol=1e-14, atol=0)


@pytest.fixture(params=['high', 'medium'])
def matmul_precision(request):
    """A precision at which float32 matmuls may round their operands."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield
    torch.set_float32_matmul_precision(before)


def test_the_precision_of_matmuls_changes_nothing(matmul_precision, monkeypatch):
    def rounded(kernel, vectors, dim, scratch):  # what a CPU with such instructions would do
        kernel, vectors = kernel.bfloat16().float(), vectors.bfloat16().float()
        return vectors @ (kernel if dim == 0 else kernel.T)

    monkeypatch.setattr(inverse_distance, '_sums_by_matmul', rounded)
    pairs = random_pairs(40, 20000, dtype=torch.float32)
    for result, expected in zip(inverse_distance_sum(*pairs), plain_sum(*pairs), strict=True):
        assert (result - expected).norm() <= 1e-4 * expected.norm()


def test_nan_reaches_all_that_it_meets(kind):
    points = POINTS.clone()
    points[0, 0, 0] = torch.nan
    value, by_points, by_centres = inverse_distance_sum(points, CENTRES, OWN, WEIGHT, SPANS, **kind)
    assert value.isnan() and by_points[0, :, 0].isnan().all() and by_centres[1].isnan().all()
    # Its own centre does not see it (the tiles multiply its NaN by zero, though).
    assert by_points[0, :, 1:].isfinite().all()


def test_autograd_scales_the_gradients():
    points, centres = POINTS.clone().requires_grad_(), CENTRES.clone().requires_grad_()
    value = InverseDistanceSum.apply(points, centres, OWN, WEIGHT, SPANS, None)
    (3 * value).backward()
    expected = inverse_distance_sum(POINTS, CENTRES, OWN, WEIGHT, SPANS)
    torch.testing.assert_close(points.grad, 3 * expected[1], rtol=1e-15, atol=0)
    torch.testing.assert_close(centres.grad, 3 * expected[2], rtol=1e-15, atol=0)


@pytest.fixture
def fresh_compilation():
    torch.compiler.reset()
    inverse_distance.compiled_sums.cache_clear()
    yield
    torch.compiler.reset()
    inverse_distance.compiled_sums.cache_clear()


def test_a_failing_compiler_is_announced_once(fresh_compilation, monkeypatch):
    def no_compiler(*_):
        raise RuntimeError('no g++ here\nand a traceback')

    monkeypatch.setattr(torch, 'compile', lambda *_, **__: no_compiler)
    with pytest.warns(UserWarning, match='goes on without it.*RuntimeError: no g\\+\\+ here'):
        value = inverse_distance_sum(POINTS, CENTRES, OWN, WEIGHT, SPANS, compiled=True)[0]
    assert value.item() == pytest.approx(VALUE, rel=1e-15)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        inverse_distance_sum(POINTS, CENTRES, OWN, WEIGHT, SPANS, compiled=True)


@pytest.mark.slow
def test_one_compilation_serves_all_sizes_and_stores_no_pairs(fresh_compilation):
    """Needs a C++ compiler: without one the warning fails the test."""
    from torch._dynamo.utils import counters

    counters.clear()
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        inverse_distance.compiled_sums('cpu', torch.float32)
    for sizes in ((1, 5), (2, 8192), (7, 30000), (64, 64 * 4096), (300, 9000)):
        pairs = random_pairs(*sizes, dtype=torch.float32)
        exact = inverse_distance_sum(pairs[0].double(), *pairs[1:])
        start = memory_now()
        compiled = inverse_distance_sum(*pairs, compiled=True)
        grown = peak_since(start)
        assert grown < 32 * 1024  # KiB; the pairs of the fourth case would be 64 MiB
        for result, expected in zip(compiled, exact, strict=True):
            assert (result - expected).norm() <= 2e-6 * expected.norm()
    assert counters['stats']['unique_graphs'] == 1


@pytest.mark.parametrize('num_pixels', [1, 7, 8, 21])
def test_segment_sums_are_in_float64(num_pixels):
    image = torch.full((3, num_pixels), 0.1)  # float32: 0.100000001490116
    image[1] = 2**20
    segment = torch.arange(num_pixels) % 2
    sums = SegmentSums(image[None], 3)
    sums.add(image, segment)
    sums.add(image[:, :1], torch.tensor([2]))
    size = torch.tensor([(num_pixels + 1) // 2, num_pixels // 2, 1]).double()
    expected = torch.stack([size * 0.100000001490116, size * 2**20, size * 0.100000001490116], 1)
    torch.testing.assert_close(sums.total(), expected, rtol=1e-14, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('compiled', [False, True])
@pytest.mark.parametrize('sizes', [(1, 5000), (40, 20000), (300, 9000)])
def test_cuda_equals_cpu(sizes, compiled):
    points, centres, own, weight, spans = random_pairs(*sizes, dtype=torch.float32)
    expected = plain_sum(points, centres, own, weight, spans)
    there = points.cuda(), centres.cuda(), own.cuda(), weight.cuda()
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        result = inverse_distance_sum(*there, spans, compiled=compiled)
    for part, expected_part in zip(result, expected, strict=True):
        tolerance = 2e-6 if compiled else 1e-4
        assert (part.cpu() - expected_part).norm() <= tolerance * expected_part.norm()
