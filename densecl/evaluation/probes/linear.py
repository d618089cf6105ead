"""Linear probe: multinomial logistic regression on frozen features, fitted by L-BFGS (as Radford et
al. 2021, appendix A.3).
"""

from torch import Tensor

from densecl.config.probe_params import LinearParams
from densecl.evaluation.frozen_features.accuracy import measure_accuracy
from densecl.evaluation.probing.context import ProbeContext
from densecl.evaluation.probing.result import ProbeResult
from densecl.network.logistic_regression import fit_linear_probe
from densecl.runtime.hardware import get_device


def measure(context: ProbeContext, params: LinearParams) -> ProbeResult:
    """Accuracy of a linear layer on CLS and on mean patches."""
    return measure_accuracy(context, params, classify)


def classify(features: Tensor, labels: Tensor, asked: Tensor, classes: int) -> Tensor:
    """Labels [m] of features [m, E], by the layer that fits features [n, E] and labels [n]; of
    equal scores the lowest label.
    """
    weight, bias = fit_linear_probe(features, labels.to(get_device()), classes)
    scores = asked.double() @ weight.cpu().double().T + bias.cpu().double()  # [m, C]
    return scores.argmax(1)
