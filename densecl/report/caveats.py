"""What must be known before the numbers are believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from statistics import fmean

import pandas as pd

from densecl.artifacts import ReportPlan
from densecl.config.params import ContrastParams
from densecl.pages.formatting import format_percent

# What matches are found on -> its name in history.csv; on the crops' geometry nothing is learned.
MATCHING_FEATURES = {"dense": "dense", "backbone": "last"}


def check_learned_position(
    plan: ReportPlan, histories: Mapping[str, list[pd.DataFrame]]
) -> list[str]:
    """Of dense, where matches of flipped or shifted views are no better than the same index."""
    mode_contrast = _parse_contrast(plan).resolve_mode("dense")
    name = MATCHING_FEATURES.get(getattr(mode_contrast, "correspondence_features", ""), "")
    columns = [f"match/{name}/moved0", "match/identity/moved0"]
    final_values = [
        frame[columns].iloc[-1]
        for frame in histories.get("dense", [])
        if {*columns} <= {*frame.columns}
    ]
    worse = [
        (match_rate, identity_rate)
        for match_rate, identity_rate in final_values
        if match_rate <= identity_rate
    ]
    if not worse:
        return []
    match_rate, identity_rate = (fmean(values) for values in zip(*worse, strict=True))
    share_text = (
        f" in {len(worse)} of {len(final_values)} trainings" if len(final_values) > 1 else ""
    )
    return [
        f"Matching has learned position, not content{share_text}: of flipped or shifted views "
        f"{format_percent(match_rate)} % of the patches "
        f"are matched to their true place, and {format_percent(identity_rate)} % by the same index."
    ]


def describe_probed_modes(plan: ReportPlan) -> list[str]:
    contrast = _parse_contrast(plan)
    probed = [
        m
        for m in plan.modes
        if (mode_contrast := contrast.resolve_mode(m)) is not None
        and mode_contrast.lambda_weight == 1
    ]
    return [
        f"{m} trained no classifier (lambda 1): a linear probe on its frozen features is evaluated."
        for m in probed
    ]


def _parse_contrast(plan: ReportPlan) -> ContrastParams:
    return ContrastParams.model_validate_json(json.dumps(plan.params.get("contrast", {})))
