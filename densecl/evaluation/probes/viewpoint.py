"""Viewpoint: accuracy and agreement under rotation, scale, translation and perspective.

The validation images as they are evaluated, resized and cropped, are warped (viewpoint_warps.py).
The direction is drawn once per image and warp. docs/probes/viewpoint.md defines all of it.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from densecl.config.probe_params import ViewpointParams
from densecl.evaluation.probing.context import ProbeContext, draw_numbers, get_places
from densecl.evaluation.probing.curves import MeasureTable, Values, name_point
from densecl.evaluation.probing.result import ProbeResult
from densecl.evaluation.stimuli.viewpoint_warps import DRAWS, WARPS


def measure(context: ProbeContext, params: ViewpointParams) -> ProbeResult:
    """`<warp>/<strength>` and `<warp>/area`: accuracy; `<warp>/<strength>/consistency` and
    `<warp>/consistency`, their mean: share of the images with the same prediction as without the
    warp; `area`: mean of the areas.
    """
    table, chance = MeasureTable(context.build_rows()), 1 / len(context.scored_indices)
    plain = torch.tensor(context.plain_rows["prediction"].to_numpy(copy=True))
    areas = []
    for warp in WARPS:
        predicted = predict_warped(context, warp, getattr(params, warp))
        points = {
            strength: context.is_correct(classes).numpy() for strength, classes in predicted.items()
        }
        areas.append(table.add_curve(warp, context.is_correct(plain).numpy(), points, chance))
        same = {
            strength: (classes == plain).double().numpy() for strength, classes in predicted.items()
        }
        add_consistency(table, warp, same)
    table.add("area", np.mean(areas, axis=0), chance=chance)
    return ProbeResult(table.rows, table.measures)


def add_consistency(table: MeasureTable, warp: str, same: dict[float, Values]) -> None:
    curve = f"{warp}/consistency"
    for strength, values in same.items():
        name = f"{name_point(warp, strength)}/consistency"
        table.add(name, values, curve=curve, strength=strength)
    table.add(curve, np.mean(list(same.values()), axis=0))


def predict_warped(
    context: ProbeContext, warp: str, strengths: tuple[float, ...]
) -> dict[float, Tensor]:
    """Predicted classes [n] of the validation images under a warp, by strength."""
    fill = [255 * value for value in context.preprocessing.mean]  # as a colour
    draws = draw_numbers(context.frame["image_id"], DRAWS, "viewpoint", warp)

    def alter(images: Tensor, rows: pd.DataFrame) -> Iterator[Tensor]:
        for strength in strengths:
            yield WARPS[warp](images, draws[get_places(rows)], strength, fill)

    return context.predict_altered(strengths, alter, f"viewpoint {warp}")
