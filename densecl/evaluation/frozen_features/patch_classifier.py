"""Multinomial logistic regression on patch tokens, which is fitted several times for each model.

`densecl.network.logistic_regression` is for features that exceed memory, and needs three times as
many iterations: tokens of neighbouring patches are alike. R patches, E features, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

L2_PENALTY = 1e-4  # on the squared weights of standardised tokens
MAX_ITERATIONS = 200  # in either precision
# Largest entry of the gradient, in the coordinates of the steps, at which fp64 ends: on the
# built-in images, logits are then within 0.002 of those of the minimum. torch's own rule ends at
# the first small change of the loss, with 20 times that.
MAX_GRADIENT = 1e-7
HISTORY = 20  # steps that L-BFGS remembers
# Ridge of the preconditioner, in units of the penalty: near the inverse of the curvature of the
# loss in the direction of a class, p (1 - p) averaged over patches.
RIDGE = 100


def fit_patch_classifier(
    tokens: Tensor, labels: Tensor, classes: int, *, polish: bool = True
) -> tuple[Tensor, Tensor]:
    """Weight [C, E] and bias [C], fp32, for tokens [R, E] as they are.

    The minimum of mean cross-entropy + L2_PENALTY * |W|^2, W the weights of tokens that are
    standardised over R, bias not penalised: unique but for a constant in the biases. Found by
    L-BFGS from 0 in fp32 and, with `polish`, from there in fp64. The steps are taken in coordinates
    in which tokens are nearly uncorrelated, which changes their number and not the minimum.
    """
    values = tokens.double()
    mean, std = values.mean(0), values.std(0, correction=0).clamp_min(1e-6)
    standardised = (values - mean) / std
    variances, axes = torch.linalg.eigh(standardised.T @ standardised / len(values))
    scaling = axes / (variances.clamp_min(0) + RIDGE * L2_PENALTY).sqrt()  # [E, E]
    inputs, back = standardised @ scaling, scaling.T.contiguous()
    weight, bias = values.new_zeros(classes, values.shape[1]), values.new_zeros(classes)
    for dtype in (torch.float32, torch.float64)[: 1 + polish]:
        weight, bias = minimise(
            *(part.to(dtype) for part in (inputs, back, weight, bias)), labels=labels
        )
    scaled = (weight.double() @ back) / std
    return scaled.float(), (bias.double() - scaled @ mean).float()


def minimise(
    inputs: Tensor, back: Tensor, weight: Tensor, bias: Tensor, *, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight [C, E] and bias [C] for inputs [R, E], from those that are given; `back` [E, E] gives
    the penalised weights.
    """
    parameters = [weight.clone().requires_grad_(), bias.clone().requires_grad_()]
    is_exact = inputs.dtype == torch.float64
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=MAX_ITERATIONS,
        max_eval=2 * MAX_ITERATIONS,  # of the loss: torch's own bound may end a step too early
        tolerance_grad=MAX_GRADIENT,
        tolerance_change=0 if is_exact else 1e-9,  # of fp32, smaller changes are rounding
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(inputs, *parameters), labels)
        loss = loss + L2_PENALTY * (parameters[0] @ back).square().sum()
        loss.backward()
        return float(loss.detach())

    with torch.enable_grad():
        optimizer.step(closure)
    return parameters[0].detach(), parameters[1].detach()
