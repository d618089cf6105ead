"""What must be known before the numbers are believed."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pandas as pd

from densecl.params import Contrast
from densecl.records import ReportPlan
from densecl.reporting.numbers import percent


def learned_position(histories: Mapping[str, list[pd.DataFrame]]) -> list[str]:
    """Of dense, where matches of flipped or shifted views are no better than the same index."""
    said = []
    for frame in histories.get("dense", []):
        if "match/dense/moved0" not in frame:
            continue
        found, same = frame[["match/dense/moved0", "match/identity/moved0"]].iloc[-1]
        if found <= same:
            said.append(
                f"Matching has learned position, not content: of flipped or shifted views {percent(found)} % of the patches "
                f"are matched to their true place, and {percent(same)} % by the same index."
            )
    return said


def probed(plan: ReportPlan) -> list[str]:
    contrast = Contrast.model_validate_json(json.dumps(plan.params.get("contrast", {})))
    alone = [m for m in plan.modes if (of := contrast.of(m)) is not None and of.lambda_weight == 1]
    return [f"{m} trained no classifier (lambda 1): a linear probe on its frozen features is evaluated." for m in alone]
