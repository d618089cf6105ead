"""Effective robustness: how far accuracy under shift lies above what clean accuracy lets expect
(Taori et al. 2020).

The expectation is logit(shift) = slope logit(clean) + intercept, fitted on the standard-training
models of imagenet-testbed's public table (`effective_robustness.csv`), in fractions. It holds at
ImageNet scale only.
"""

from __future__ import annotations

import csv
import math
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Piece(NamedTuple):
    """A fit for clean accuracies from `low` to `high`."""

    low: float
    high: float
    slope: float
    intercept: float


class NoFit(ValueError):
    """There is no published fit for this set or this clean accuracy; the message says which."""


@cache
def pieces(protocol: str) -> tuple[Piece, ...]:
    """The fits of one set, in the order of clean accuracy; none for a set that the table has
    not.
    """
    text = (files("densecl.evaluation") / "effective_robustness.csv").read_text(encoding="utf-8")
    return tuple(
        Piece(
            float(row["from_percent"]) / 100,
            float(row["to_percent"]) / 100,
            float(row["slope"]),
            float(row["intercept"]),
        )
        for row in csv.DictReader(text.splitlines())
        if row["dataset"] == protocol
    )


def piece_for(protocol: str, clean: float) -> Piece:
    """The fit that holds at this clean accuracy; NoFit where none does."""
    fits = pieces(protocol)
    if not fits:
        raise NoFit(f"no published fit for {protocol}")
    for fit in fits:
        if fit.low <= clean <= fit.high and clean < 1:
            return fit
    raise NoFit(
        f"clean top-1 {100 * clean:.1f} % lies outside {100 * fits[0].low:g} to 100 %, where the "
        f"fit holds"
    )


def expected(protocol: str, clean: float) -> float:
    """Accuracy under shift of a standard model with this clean accuracy; NoFit as `piece_for`."""
    fit = piece_for(protocol, clean)
    return 1 / (1 + math.exp(-(fit.slope * math.log(clean / (1 - clean)) + fit.intercept)))


def slope_at(protocol: str, clean: float) -> float:
    """d expected / d clean, for the error that the clean accuracy's own error adds."""
    shifted = expected(protocol, clean)
    return piece_for(protocol, clean).slope * shifted * (1 - shifted) / (clean * (1 - clean))
