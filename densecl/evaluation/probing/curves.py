"""Columns of a probe, the measures that are their means, and the areas under their curves."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from densecl.artifacts import ProbeMeasure
from densecl.evaluation.probing.result import build_measure

Values = NDArray[np.float64]  # [n], one per image; NaN where an image has none


class MeasureTable:
    """Rows of images, to which measures are added one by one."""

    def __init__(self, rows: pd.DataFrame) -> None:
        """`rows`: `image_id` and `source` of n images."""
        self.rows = rows
        self.measures: dict[str, ProbeMeasure] = {}

    def add(
        self,
        name: str,
        values: Values,
        *,
        chance: float | None = None,
        curve: str = "",
        strength: float | None = None,
        note: str = "",
    ) -> None:
        self.rows = self.rows.assign(**{name: values})
        self.measures[name] = build_measure(
            self.rows, name, chance=chance, curve=curve, strength=strength, note=note
        )

    def add_curve(
        self,
        curve: str,
        plain: Values,
        points: Mapping[float, Values],
        chance: float,
        note: str = "",
    ) -> Values:
        """Add `<curve>/<strength>` for each strength, and `<curve>/area`, which is returned."""
        for strength, values in points.items():
            name = name_point(curve, strength)
            self.add(name, values, chance=chance, curve=curve, strength=strength, note=note)
        area = compute_area({0.0: plain, **points})
        self.add(f"{curve}/area", area, chance=chance, note=note)
        return area


def name_point(curve: str, strength: float) -> str:
    """`random/0.25`, `rotation/30`."""
    return f"{curve}/{strength:g}"


def name_curve(curve: str, strengths: tuple[float, ...]) -> list[str]:
    """All measures that `add_curve` adds."""
    return [*(name_point(curve, strength) for strength in strengths), f"{curve}/area"]


def compute_area(points: Mapping[float, Values]) -> Values:
    """Area [n] under each image's curve by the trapezoid rule, divided by the largest strength: a
    mean over the strengths, in the unit of the values.
    """
    strengths = np.array(sorted(points))
    values = np.stack([points[strength] for strength in strengths])
    return np.asarray(np.trapezoid(values, strengths, axis=0) / (strengths[-1] - strengths[0]))
