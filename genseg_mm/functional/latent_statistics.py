"""Whether latents are linearly separable, and how sharply their values lie (GenMask, Sec. on mask latents).

Latents are taken cell by cell: (n, C) are n latent cells of C channels.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

METHODS = ('least_squares', 'logistic')
# Of the histogram that an entropy comes from: bins over +-REACH standard deviations; values beyond count in the last.
BINS, REACH = 100, 5.0


class PrincipalComponents(NamedTuple):
    """Principal components of cells.

    Attributes:
        mean: (C,).
        vectors: Orthonormal rows, (C, C), by falling variance; the largest entry of each is positive.
        variances: (C,).
    """

    mean: Tensor
    vectors: Tensor
    variances: Tensor

    def shares(self) -> Tensor:
        """Explained share of the variance by component, (C,), sum 1 (0 if nothing varies)."""
        return self.variances / self.variances.sum().clamp(min=1e-30)


def principal_components(cells: Tensor) -> PrincipalComponents:
    """Principal components of cells (n, C), computed in float64."""
    cells = cells.double()
    mean = cells.mean(0)
    covariance = (cells - mean).T @ (cells - mean) / len(cells)
    variances, vectors = torch.linalg.eigh(covariance)
    vectors = vectors.flip(1).T
    vectors = vectors * vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).sign()
    return PrincipalComponents(mean, vectors, variances.flip(0).clamp(min=0))


def fit_linear_map(
    cells: Tensor, labels: Tensor, method: str = 'least_squares', ridge: float = 0.001
) -> tuple[Tensor, Tensor]:
    """Linear classifiers of cells, one for each of K labels.

    Args:
        cells: (n, C).
        labels: (n, K) in {0, 1}.
        method: 'least_squares': closed form, values aim at -1 and 1. 'logistic': log-odds, by L-BFGS.
        ridge: Penalty of the weights (not of the biases). For least squares it is the variance of white noise on the
            cells that the fit allows for; for logistic regression ``ridge / 2 * |weights|^2`` joins the mean loss.

    Returns:
        Weights (K, C) and biases (K,), float32.

    Raises:
        ValueError: If the method is unknown, ridge is negative or the numbers of cells disagree.
    """
    if method not in METHODS:
        raise ValueError(f'method must be one of {METHODS}, but got {method!r}')
    if ridge < 0:
        raise ValueError(f'ridge must be at least 0, but got {ridge}')
    if len(cells) != len(labels) or len(cells) == 0:
        raise ValueError(f'expected as many labels as cells, {len(cells)} > 0, but got {len(labels)}')
    if method == 'logistic':
        return _logistic(cells, labels, ridge)
    cells, targets = cells.double(), labels.double() * 2 - 1
    mean, target_mean = cells.mean(0), targets.mean(0)
    covariance = (cells - mean).T @ (cells - mean) / len(cells)
    covariance += ridge * torch.eye(cells.shape[1], dtype=torch.float64, device=cells.device)
    cross = (cells - mean).T @ (targets - target_mean) / len(cells)  # (C, K)
    # Mask latents need not fill their space: the pseudo-inverse leaves out what never varies.
    weight = (torch.linalg.pinv(covariance, hermitian=True, rtol=1e-12) @ cross).T  # (K, C)
    return weight.float(), (target_mean - weight @ mean).float()


def _logistic(cells: Tensor, labels: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    cells, labels = cells.detach().float(), labels.float()
    mean, std = cells.mean(0), cells.std(0).clamp(min=1e-6)  # conditions L-BFGS; undone below
    scaled = (cells - mean) / std
    weight = cells.new_zeros(labels.shape[1], cells.shape[1]).requires_grad_()
    bias = cells.new_zeros(labels.shape[1]).requires_grad_()
    solver = torch.optim.LBFGS([weight, bias], max_iter=100, history_size=20, line_search_fn='strong_wolfe')

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.binary_cross_entropy_with_logits(F.linear(scaled, weight, bias), labels)
        # Weights of the unscaled cells are what is penalised; per label, as the loss is a mean over labels.
        loss = loss + ridge / 2 * (weight / std).square().sum() / len(weight)
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    weight, bias = weight.detach(), bias.detach()
    return weight / std, bias - (weight / std) @ mean


class Sharpness(NamedTuple):
    """How far a distribution is from a bell.

    Attributes:
        kurtosis: Excess kurtosis: 0 for a Gaussian, -2 for two equal spikes, above 0 for a spike with tails.
        bimodality: Sarle's coefficient (skewness^2 + 1) / kurtosis, in (0, 1]: 1 for two spikes (of any weights), 5/9
            uniform, 1/3 Gaussian.
        entropy: Differential entropy in nats of the values at unit variance, from a histogram: 1.42 for a Gaussian, the
            largest there is; far lower for spikes.
    """

    kurtosis: float
    bimodality: float
    entropy: float


def sharpness(values: Tensor) -> Sharpness:
    """Sharpness of values of any shape, pooled.

    Args:
        values: At least two different values.

    Raises:
        ValueError: If the values do not vary.
    """
    values = values.flatten().double()
    std = values.std(correction=0)
    if not std > 0:
        raise ValueError('sharpness needs values that vary, but got a constant')
    values = (values - values.mean()) / std
    skewness, kurtosis = values.pow(3).mean(), values.pow(4).mean()
    inside = values.clamp(-REACH, REACH).float().cpu()
    counts = torch.histc(inside, BINS, -REACH, REACH).double()
    shares = counts[counts > 0] / counts.sum()
    entropy = -(shares * shares.log()).sum() + math.log(2 * REACH / BINS)
    return Sharpness(float(kurtosis - 3), float((skewness.square() + 1) / kurtosis), float(entropy))


def best_threshold(scores: Tensor, masks: Tensor) -> float:
    """Threshold t with the largest overall IoU of ``scores > t`` and masks.

    Args:
        scores: Any shape.
        masks: Bool, same shape.
    """
    ranked, order = scores.flatten().float().sort(descending=True)
    hits = masks.flatten()[order].double().cumsum(0)  # among the k + 1 largest scores
    taken = torch.arange(1, len(order) + 1, dtype=torch.float64, device=hits.device)
    iou = hits / (taken + hits[-1] - hits)
    following = torch.cat([ranked[1:], ranked[-1:] - 1])
    iou[ranked == following] = -1  # equal scores fall on one side
    best = iou.argmax()
    return float((ranked[best] + following[best]) / 2)


def overall_iou(predicted: Tensor, masks: Tensor) -> float:
    """Intersection over union of all pixels together (oIoU); 1 if both are empty.

    Args:
        predicted: Bool, any shape.
        masks: Bool, same shape.
    """
    union = (predicted | masks).sum()
    return float((predicted & masks).sum() / union) if union else 1.0
