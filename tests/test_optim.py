"""bfloat16 training on any device."""

import pytest
import torch
from torch import nn

from genseg_mm.registry import OPTIM_WRAPPERS


def build(model: nn.Module, **kwargs: object):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    return OPTIM_WRAPPERS.build(
        dict(type='genseg_mm.AutocastOptimWrapper', optimizer=optimizer, **kwargs)
    )


def test_computes_in_bfloat16_and_updates_in_float32() -> None:
    model = nn.Linear(3, 1, bias=False)
    nn.init.constant_(model.weight, 1 / 3)
    wrapper = build(model)
    inputs = torch.tensor([[1.0, 2.0, 4.0]])
    with wrapper.optim_context(model):
        output = model(inputs)
    assert output.dtype == torch.bfloat16
    # 7 times 1/3 rounded to 8 bits of mantissa, 0.333984375, rounded again.
    assert output.item() == torch.tensor(7 * 0.333984375).bfloat16().item() == 2.34375
    wrapper.update_params(output.float().sum())
    assert model.weight.dtype == torch.float32
    expected = torch.tensor([[1 / 3 - 0.5, 1 / 3 - 1, 1 / 3 - 2]])
    assert torch.allclose(model.weight, expected, rtol=0, atol=1e-7)
    assert (
        torch.nn.functional.linear(inputs, inputs).dtype == torch.float32
    )  # the context has ended


def test_accumulates_like_the_plain_wrapper() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    wrapper = build(model, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    weights = []
    for value in (1.0, 3.0, 2.0, 2.0):
        with wrapper.optim_context(model):
            loss = model(torch.tensor([[value]])).float().sum()
        wrapper.update_params(loss)
        weights.append(model.weight.item())
    assert weights == [0.0, -1.0, -1.0, -2.0]  # steps of 0.5 times the mean of two gradients


def test_float16_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="'bfloat16' only, but got 'float16'.*AmpOptimWrapper"):
        build(nn.Linear(1, 1), dtype='float16')
