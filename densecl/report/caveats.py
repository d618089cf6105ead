"""What must be known before the numbers are believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from statistics import fmean

import pandas as pd

from densecl.artifacts import ReportPlan
from densecl.config.params import Contrast
from densecl.report.formatting import percent

# What matches are found on -> its name in history.csv; on the crops' geometry nothing is learned.
MATCHED = {"dense": "dense", "backbone": "last"}


def learned_position(plan: ReportPlan, histories: Mapping[str, list[pd.DataFrame]]) -> list[str]:
    """Of dense, where matches of flipped or shifted views are no better than the same index."""
    how = _contrast(plan).of("dense")
    name = MATCHED.get(getattr(how, "correspondence_features", ""), "")
    pair = [f"match/{name}/moved0", "match/identity/moved0"]
    last = [
        frame[pair].iloc[-1] for frame in histories.get("dense", []) if {*pair} <= {*frame.columns}
    ]
    worse = [(found, same) for found, same in last if found <= same]
    if not worse:
        return []
    found, same = (fmean(values) for values in zip(*worse, strict=True))
    where = f" in {len(worse)} of {len(last)} trainings" if len(last) > 1 else ""
    return [
        f"Matching has learned position, not content{where}: of flipped or shifted views "
        f"{percent(found)} % of the patches "
        f"are matched to their true place, and {percent(same)} % by the same index."
    ]


def probed(plan: ReportPlan) -> list[str]:
    contrast = _contrast(plan)
    alone = [m for m in plan.modes if (of := contrast.of(m)) is not None and of.lambda_weight == 1]
    return [
        f"{m} trained no classifier (lambda 1): a linear probe on its frozen features is evaluated."
        for m in alone
    ]


def _contrast(plan: ReportPlan) -> Contrast:
    return Contrast.model_validate_json(json.dumps(plan.params.get("contrast", {})))
