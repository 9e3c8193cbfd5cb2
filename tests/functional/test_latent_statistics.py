"""Statistics of latents on values worked out by hand."""

import math

import pytest
import torch

from genseg_mm.functional.latent_statistics import (
    best_threshold,
    fit_linear_map,
    overall_iou,
    principal_components,
    sharpness,
)


def test_principal_components_of_four_cells():
    cells = torch.tensor([[3.0, 1.0], [-1.0, 1.0], [1.0, 2.0], [1.0, 0.0]])  # mean (1, 1)
    found = principal_components(cells)
    assert found.mean.tolist() == [1.0, 1.0]
    torch.testing.assert_close(found.variances.float(), torch.tensor([2.0, 0.5]))
    torch.testing.assert_close(found.vectors.float(), torch.eye(2))
    torch.testing.assert_close(found.shares().float(), torch.tensor([0.8, 0.2]))


def test_least_squares_by_hand():
    # One channel, values -2 and 2, labels 0 and 1: covariance 4, cross 2, so the weight is 2 / (4 + ridge).
    cells, labels = torch.tensor([[-2.0], [2.0]]) + 3, torch.tensor([[0], [1]])
    for ridge, expected in ((0.0, 0.5), (4.0, 0.25)):
        weight, bias = fit_linear_map(cells, labels, 'least_squares', ridge)
        assert math.isclose(weight.item(), expected, rel_tol=1e-6)
        assert math.isclose(bias.item(), -3 * expected, rel_tol=1e-6)  # 0 half way


def test_a_channel_that_never_varies_gets_no_weight():
    cells = torch.tensor([[-1.0, 5.0], [1.0, 5.0]])
    weight, bias = fit_linear_map(cells, torch.tensor([[0], [1]]), ridge=0.0)
    torch.testing.assert_close(weight, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(bias, torch.zeros(1))


def test_logistic_regression_finds_the_true_log_odds():
    # At each of two values the labels are 1 in 1 of 4 and 3 of 4 cells: log-odds -ln 3 and ln 3.
    cells = torch.tensor([[-1.0]] * 4 + [[1.0]] * 4)
    labels = torch.tensor([[1, 0], [0, 1], [0, 1], [0, 1], [1, 0], [1, 0], [1, 0], [0, 1]])
    weight, bias = fit_linear_map(cells, labels, 'logistic', ridge=0.0)
    expected = torch.tensor([[math.log(3)], [-math.log(3)]])
    torch.testing.assert_close(weight, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(bias, torch.zeros(2), rtol=0, atol=1e-3)
    small, _ = fit_linear_map(cells, labels, 'logistic', ridge=1.0)
    assert (small.abs() < 0.5 * weight.abs()).all()


def test_sharpness_of_known_distributions():
    spikes = sharpness(torch.tensor([-1.0, 1.0]).repeat(500))
    assert (round(spikes.kurtosis, 6), round(spikes.bimodality, 6)) == (-2, 1)
    # Two of 100 bins of width 0.1: ln 2 + ln 0.1.
    assert math.isclose(spikes.entropy, math.log(0.2), abs_tol=1e-6)
    rare = sharpness(torch.tensor([1.0] + [0.0] * 9))
    assert math.isclose(rare.bimodality, 1, abs_tol=1e-6)  # spikes of any weights
    gauss = sharpness(torch.randn(200_000, generator=torch.Generator().manual_seed(0)) * 3 + 7)
    assert abs(gauss.kurtosis) < 0.05 and abs(gauss.bimodality - 1 / 3) < 0.01
    assert abs(gauss.entropy - 0.5 * math.log(2 * math.pi * math.e)) < 0.01
    flat = sharpness(torch.linspace(0, 1, 100_001))
    assert abs(flat.kurtosis + 1.2) < 1e-3 and abs(flat.bimodality - 5 / 9) < 1e-3


def test_best_threshold_and_iou_by_hand():
    scores = torch.tensor([0.9, 0.8, 0.7, 0.7, 0.1])
    masks = torch.tensor([True, False, True, True, False])
    threshold = best_threshold(scores, masks)  # 3 of 4 above it are right; equal scores stay together
    assert math.isclose(threshold, 0.4, abs_tol=1e-6)
    assert overall_iou(scores > threshold, masks) == 0.75
    assert overall_iou(torch.zeros(3) > 0, torch.zeros(3) > 0) == 1.0
    assert best_threshold(torch.tensor([1.0, 2.0]), torch.tensor([True, True])) < 1  # all are taken


def test_wrong_input_says_what_came():
    cells = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="'least_squares', 'logistic'.*but got 'svm'"):
        fit_linear_map(cells, torch.zeros(3, 1), 'svm')
    with pytest.raises(ValueError, match='as many labels as cells, 3 > 0, but got 4'):
        fit_linear_map(cells, torch.zeros(4, 1))
    with pytest.raises(ValueError, match='ridge must be at least 0, but got -1'):
        fit_linear_map(cells, torch.zeros(3, 1), ridge=-1)
    with pytest.raises(ValueError, match='constant'):
        sharpness(torch.ones(4))
