"""The tiled loss against a plain loop over instances, hand-worked numbers and identities."""

import pytest
import torch

from genseg_mm.functional import inverse_distance
from genseg_mm.functional.instance_coloring import InstanceColoringTerms, instance_coloring_loss


def plain_image_loss(image, ids, ignore, formula, cap):
    """Three terms of one image as the formulas read, instance by instance with boolean masks."""
    reference = formula == 'reference'
    zero = 0 * image.sum()
    variance, separation, means, instances = zero, zero, [], 0
    for key in sorted(set(ids.flatten().tolist())):
        if key == 0 and ignore:
            continue
        if len(means) == cap:
            break
        inside, outside = image[:, ids == key].T, image[:, ids != key].T
        mean = inside.mean(0) if key else image.new_zeros(3)
        distance = (inside - mean).abs()
        huber = torch.where(distance < 1, distance**2 / 2, distance - 0.5)
        variance = variance + (huber.mean() if reference else huber.sum() / len(inside))
        means.append(mean)
        if key:
            instances += 1
            if len(outside):
                closeness = (1 / (1 + ((outside - mean) ** 2).sum(1))).mean()
                factor = 10 if reference else 1
                separation = separation + 300 * factor * closeness / len(inside) ** 0.5
    first, second = torch.combinations(torch.arange(len(means))).T
    stacked = torch.stack([zero.expand(3), *means])[1:]
    pairs = 1 / (1 + ((stacked[first] - stacked[second]) ** 2).sum(1))
    total = zero + 300 * pairs.sum()
    if reference:
        count = max(1, len(means))
        return variance / count, separation / count, total / max(1, len(pairs)) / count
    return variance, separation, total / max(1, instances * (instances + 1))


def plain_loss(colors, ids, ignore=None, formula='reference', cap=None):
    ignore = [False] * len(colors) if ignore is None else ignore
    cap = 1251 if cap is None and formula == 'reference' else cap
    terms = [plain_image_loss(*sample, formula, cap) for sample in zip(colors, ids, ignore, strict=True)]
    return InstanceColoringTerms(*(sum(term) / len(colors) for term in zip(*terms, strict=True)))


def random_ids(num, batch=2, height=11, width=13, step=1, low=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, num + 1, (batch, height, width), generator=generator) * step


def case(name):
    """ids, ignore_background, max_instances."""
    if name == 'several':
        return random_ids(5), None, None
    if name == 'more than a tile':
        return random_ids(80, height=24, width=25), [True, False], None
    if name == 'one pixel each':
        ids = torch.zeros(2, 6, 7, dtype=torch.int64)
        ids[0, 1, 2], ids[0, 3, 3], ids[1, 5, 6] = 3, 4, 9
        return ids, None, None
    if name == 'no instance':
        return torch.zeros(2, 5, 6, dtype=torch.int64), [False, True], None
    if name == 'ignored background':
        return random_ids(4), [True, True], None
    if name == 'no background':
        return random_ids(4, low=1), [True, False], None
    if name == 'sparse':
        return random_ids(6, step=(200 << 16) + (3 << 8) + 7), [False, True], None
    if name == 'over the cap':
        return random_ids(9, step=31), [True, False], 4
    if name == 'cap of the background alone':
        return random_ids(3), [True, False], 1
    assert name == 'one instance fills an image'
    return torch.cat([random_ids(1, batch=1, low=1), random_ids(3, batch=1)]), None, None


CASES = [
    'several',
    'more than a tile',
    'one pixel each',
    'no instance',
    'ignored background',
    'no background',
    'sparse',
    'over the cap',
    'cap of the background alone',
    'one instance fills an image',
]


def random_colors(ids, dtype=torch.float64, spread=60.0):
    """Colours around 120; spread 0.5 is a collapsed map, where differences cancel the most."""
    generator = torch.Generator().manual_seed(1)
    shape = (ids.shape[0], 3, *ids.shape[1:])
    colors = 120 + spread * torch.randn(shape, dtype=torch.float64, generator=generator)
    return colors.clamp(0, 255).to(dtype).requires_grad_()


@pytest.mark.parametrize('formula', ['reference', 'paper'])
@pytest.mark.parametrize('name', CASES)
def test_equals_the_plain_loop_in_float64(name, formula):
    ids, ignore, cap = case(name)
    for spread in (60.0, 0.5):
        colors = random_colors(ids, spread=spread)
        terms = instance_coloring_loss(colors, ids, ignore, formula, max_instances=cap)
        expected = plain_loss(colors, ids, ignore, formula, cap)
        for term, value in zip(terms, expected, strict=True):
            torch.testing.assert_close(term, value, rtol=1e-10, atol=1e-14)
            (grad,) = torch.autograd.grad(term, colors, retain_graph=True)
            (expected_grad,) = torch.autograd.grad(value, colors, retain_graph=True)
            assert (grad - expected_grad).norm() <= 1e-8 * expected_grad.norm() + 1e-14


@pytest.mark.parametrize('formula', ['reference', 'paper'])
@pytest.mark.parametrize('name', CASES)
def test_float32_stays_close_to_the_float64_loop(name, formula):
    ids, ignore, cap = case(name)
    for spread in (60.0, 0.5):
        colors = random_colors(ids, torch.float32, spread)
        exact = colors.detach().double().requires_grad_()
        loss = sum(instance_coloring_loss(colors, ids, ignore, formula, max_instances=cap))
        expected = sum(plain_loss(exact, ids, ignore, formula, cap))
        loss.backward()
        expected.backward()
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-7)
        assert (colors.grad - exact.grad).norm() <= 1e-4 * exact.grad.norm() + 1e-9


@pytest.mark.parametrize('formula', ['reference', 'paper'])
@pytest.mark.parametrize('name', CASES)
def test_compiled_pairs_change_nothing(name, formula, monkeypatch):
    """The fused sums run as they are, without torch.compile."""
    monkeypatch.setattr(inverse_distance, 'compiled_sums', lambda *_: inverse_distance._sums)
    ids, ignore, cap = case(name)
    colors = random_colors(ids)
    tiles = instance_coloring_loss(colors, ids, ignore, formula, max_instances=cap)
    fused = instance_coloring_loss(colors, ids, ignore, formula, max_instances=cap, compiled=True)
    (expected,) = torch.autograd.grad(sum(tiles), colors)
    (grad,) = torch.autograd.grad(sum(fused), colors)
    for term, value in zip(fused, tiles, strict=True):
        torch.testing.assert_close(term, value, rtol=1e-13, atol=1e-15)
    assert (grad - expected).norm() <= 1e-12 * expected.norm()


@pytest.fixture
def hand():
    """Background black; row 2 all (3, 0, 0); row 3 (0, 1 or 5, 0) with mean (0, 3, 0)."""
    ids = torch.zeros(1, 4, 4, dtype=torch.int64)
    ids[0, 2], ids[0, 3] = 7, 9
    colors = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    colors[0, 0, 2] = 3
    colors[0, 1, 3] = torch.tensor([1, 5, 1, 5])
    return colors.requires_grad_(), ids


# Mean closeness to the 12 outside pixels, of row 2 and of row 3.
ROW_2 = (8 / 10 + 2 / 11 + 2 / 35) / 12
ROW_3 = (8 / 10 + 4 / 19) / 12


def test_reference_by_hand(hand):
    variance, separation, means = instance_coloring_loss(*hand)
    assert variance.item() == pytest.approx(1.5 / 3 / 3)  # Huber of 2 on one channel of row 3
    assert separation.item() == pytest.approx(10 * 300 * (ROW_2 + ROW_3) / 2 / 3)
    assert means.item() == pytest.approx(300 * (1 / 10 + 1 / 10 + 1 / 19) / 3 / 3)
    (grad,) = torch.autograd.grad(variance, hand[0])
    assert grad[0, 1, 3].tolist() == pytest.approx([-1 / 36, 1 / 36, -1 / 36, 1 / 36])
    assert grad.abs().sum().item() == pytest.approx(4 / 36)


def test_paper_by_hand(hand):
    variance, separation, means = instance_coloring_loss(*hand, formula='paper')
    assert variance.item() == pytest.approx(1.5)
    assert separation.item() == pytest.approx(300 * (ROW_2 + ROW_3) / 2)
    assert means.item() == pytest.approx(300 * (1 / 10 + 1 / 10 + 1 / 19) / 6)


def test_ignored_background_by_hand(hand):
    colors, ids = hand
    colors = colors.detach().clone()
    colors[0, 2, :2] = 4  # a background that is not black
    row_2 = (8 / 26 + 2 / 11 + 2 / 35) / 12  # its pixels still push
    row_3 = (8 / 26 + 4 / 19) / 12
    variance, separation, means = instance_coloring_loss(colors, ids, [True])
    assert variance.item() == pytest.approx(1.5 / 3 / 2)
    assert separation.item() == pytest.approx(10 * 300 * (row_2 + row_3) / 2 / 2)
    assert means.item() == pytest.approx(300 * (1 / 19) / 2)
    variance, separation, means = instance_coloring_loss(colors, ids, [True], 'paper')
    assert variance.item() == pytest.approx(1.5)
    assert separation.item() == pytest.approx(300 * (row_2 + row_3) / 2)
    assert means.item() == pytest.approx(300 * (1 / 19) / 6)


def test_formulas_are_related():
    """reference = (V + 9000 P + 1800 M / (n (n + 1))) / (3 ct), V, P, M the paper's plain sums."""
    ids = random_ids(5, batch=1)
    colors = random_colors(ids)
    reference = sum(instance_coloring_loss(colors, ids))
    paper = instance_coloring_loss(colors, ids, formula='paper', separation_weight=9000.0, mean_weight=1800.0)
    torch.testing.assert_close(reference, sum(paper) / (3 * 6), rtol=1e-12, atol=0)


def test_reference_cap_is_1251_counted_terms():
    ids = torch.arange(36 * 36).view(1, 36, 36)  # 1295 instances of a pixel, one background pixel
    colors = random_colors(ids)
    capped = instance_coloring_loss(colors, ids, max_instances=1251)
    everything = instance_coloring_loss(colors, ids, max_instances=2000)
    assert instance_coloring_loss(colors, ids) == capped
    assert capped.variance.item() == pytest.approx(everything.variance.item() * 1296 / 1251)
    assert capped.means.item() != everything.means.item()
    paper = instance_coloring_loss(colors, ids, formula='paper')
    assert paper == instance_coloring_loss(colors, ids, formula='paper', max_instances=2000)


@pytest.mark.parametrize('formula', ['reference', 'paper'])
def test_permuted_ids_change_nothing(formula):
    ids = random_ids(6)
    colors = random_colors(ids)
    names = torch.tensor([0, 2**62 + 11, 5, 2**40, 1, 70_000, 2**63 - 1])
    expected = instance_coloring_loss(colors, ids, formula=formula)
    for permuted in (names[ids], torch.tensor([0, 6, 4, 1, 5, 2, 3])[ids]):
        terms = instance_coloring_loss(colors, permuted, formula=formula)
        for term, value in zip(terms, expected, strict=True):
            torch.testing.assert_close(term, value, rtol=1e-12, atol=0)


def test_huge_ids_without_background():
    ids = random_ids(4, low=1)
    colors = random_colors(ids)
    terms = instance_coloring_loss(colors, ids + (2**63 - 5))
    assert terms.variance.item() == pytest.approx(instance_coloring_loss(colors, ids)[0].item())
    assert terms.means.item() == pytest.approx(instance_coloring_loss(colors, ids)[2].item())


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int16, torch.int32])
def test_any_integer_type(dtype):
    ids = random_ids(5)
    colors = random_colors(ids)
    assert instance_coloring_loss(colors, ids.to(dtype)) == instance_coloring_loss(colors, ids)


def test_batch_is_the_mean_of_its_images():
    ids = random_ids(5, batch=3)
    colors, ignore = random_colors(ids), [True, False, True]
    batch = sum(instance_coloring_loss(colors, ids, torch.tensor(ignore)))
    single = [sum(instance_coloring_loss(colors[b : b + 1], ids[b : b + 1], ignore[b : b + 1])) for b in range(3)]
    torch.testing.assert_close(batch, sum(single) / 3, rtol=1e-12, atol=0)


def test_weights_scale_their_terms():
    ids = random_ids(4)
    colors = random_colors(ids)
    one = instance_coloring_loss(colors, ids)
    other = instance_coloring_loss(colors, ids, separation_weight=30.0, mean_weight=900.0)
    factors = [(b / a).item() for a, b in zip(one, other, strict=True)]
    assert factors == pytest.approx([1, 0.1, 3])


def test_tiles_do_not_matter():
    ids = random_ids(70, height=20, width=21)
    colors = random_colors(ids)
    expected = torch.autograd.grad(sum(instance_coloring_loss(colors, ids)), colors)[0]
    for tile_size in (1, 1000, 10**6):
        loss = sum(instance_coloring_loss(colors, ids, tile_size=tile_size))
        grad = torch.autograd.grad(loss, colors)[0]
        torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize('formula', ['reference', 'paper'])
def test_gradcheck(formula):
    ids = random_ids(3, height=3, width=4)
    colors = random_colors(ids, spread=3.0)
    assert torch.autograd.gradcheck(lambda x: instance_coloring_loss(x, ids, [True, False], formula), colors)


def test_autocast_changes_nothing():
    ids = random_ids(5)
    colors = random_colors(ids, torch.float32)
    expected = sum(instance_coloring_loss(colors, ids))
    (expected_grad,) = torch.autograd.grad(expected, colors)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = sum(instance_coloring_loss(colors, ids))
        (grad,) = torch.autograd.grad(loss, colors)
    assert loss.dtype == torch.float32 and loss == expected
    assert torch.equal(grad, expected_grad)


def test_half_precision_colors_are_computed_in_float32():
    ids = random_ids(5)
    colors = random_colors(ids).detach().to(torch.bfloat16).requires_grad_()
    loss = sum(instance_coloring_loss(colors, ids))
    assert loss.dtype == torch.float32
    assert loss == sum(instance_coloring_loss(colors.float(), ids))
    (grad,) = torch.autograd.grad(loss, colors)
    assert grad.dtype == torch.bfloat16 and grad.abs().sum() > 0


def test_nothing_counted_is_a_zero_in_the_graph():
    ids = torch.zeros(2, 4, 5, dtype=torch.int64)
    colors = random_colors(ids)
    terms = instance_coloring_loss(colors, ids, [True, True])
    for term in terms:
        assert term.item() == 0
        (grad,) = torch.autograd.grad(term, colors, retain_graph=True)
        assert torch.equal(grad, torch.zeros_like(colors))


@pytest.mark.parametrize('formula', ['reference', 'paper'])
def test_nan_comes_out(formula):
    ids = random_ids(3)
    colors = random_colors(ids).detach()
    colors[0, 1, 2, 3] = torch.nan
    assert sum(instance_coloring_loss(colors, ids, formula=formula)).isnan()
    assert sum(instance_coloring_loss(colors, ids * 0, [True, True], formula)).isnan()


def test_value_without_gradient_is_the_same():
    ids = random_ids(5)
    colors = random_colors(ids)
    expected = instance_coloring_loss(colors, ids)
    with torch.no_grad():
        terms = instance_coloring_loss(colors, ids)
    assert not terms.separation.requires_grad and terms == expected


def test_what_is_kept_for_backward_does_not_grow_with_the_instances():
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    ids = random_ids(300, batch=1, height=64, width=64)
    colors = random_colors(ids, torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        instance_coloring_loss(colors, ids)
    assert sum(kept) < 10 * ids.numel()


def test_double_backward_is_refused():
    ids = random_ids(3)
    colors = random_colors(ids)
    for term in instance_coloring_loss(colors, ids):
        with pytest.raises(RuntimeError, match='create_graph'):
            torch.autograd.grad(term, colors, create_graph=True, retain_graph=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('compiled', [False, True])
@pytest.mark.parametrize('name', CASES)
def test_cuda_equals_cpu(name, compiled):
    ids, ignore, cap = case(name)
    colors = random_colors(ids, torch.float32)
    expected = sum(instance_coloring_loss(colors, ids, ignore, max_instances=cap))
    (expected_grad,) = torch.autograd.grad(expected, colors)
    there = colors.detach().cuda().requires_grad_()
    loss = sum(instance_coloring_loss(there, ids.cuda(), ignore, max_instances=cap, compiled=compiled))
    (grad,) = torch.autograd.grad(loss, there)
    torch.testing.assert_close(loss.cpu(), expected, rtol=1e-5, atol=1e-7)
    assert (grad.cpu() - expected_grad).norm() <= 1e-4 * expected_grad.norm() + 1e-9


GOOD = {'colors': torch.zeros(2, 3, 4, 5), 'ids': torch.zeros(2, 4, 5, dtype=torch.int64)}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'colors': torch.zeros(2, 4, 4, 5)}, r'colors: .*\(2, 4, 4, 5\)'),
        ({'colors': torch.zeros(3, 4, 5)}, r'colors: .*\(3, 4, 5\)'),
        ({'colors': torch.zeros(0, 3, 4, 5)}, 'colors: .*empty'),
        ({'colors': torch.zeros(2, 3, 4, 5, dtype=torch.uint8)}, 'colors: .*torch.uint8'),
        ({'ids': torch.zeros(2, 5, 4, dtype=torch.int64)}, r'ids: .*\(2, 4, 5\).*\(2, 5, 4\)'),
        ({'ids': torch.zeros(2, 4, 5)}, 'ids: .*torch.float32'),
        ({'ids': torch.zeros(2, 4, 5, dtype=torch.bool)}, 'ids: .*torch.bool'),
        ({'ids': torch.full((2, 4, 5), -1)}, 'ids: .*-1'),
        ({'ignore_background': [True]}, r'ignore_background: expected 2 .*\(1,\)'),
        ({'ignore_background': torch.tensor([0, 1])}, 'ignore_background: .*torch.int64'),
        ({'formula': 'papers'}, "formula: .*'papers'"),
        ({'max_instances': 0}, 'max_instances: .*0'),
        ({'tile_size': -5}, 'tile_size: .*-5'),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        instance_coloring_loss(**{**GOOD, **change})
