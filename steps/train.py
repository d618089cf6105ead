"""Train one model and export it."""

from __future__ import annotations

from densecl import layout
from densecl.params import TRAIN_SET
from densecl.records import ReportPlan, TrainPlan, Verdict, read_json
from densecl.training.run import train
from steps.images import usable_images


def main(mode: str, seed: int) -> None:
    """Write models/<mode>/seed-<n>/ and reports/training/<mode>-<n>/.

    The evaluation sets that are validated on every epoch are watched only: nothing of them reaches the model, so
    they are no dependency and a new one retrains nothing.
    """
    plan = read_json(TrainPlan, layout.plan(mode))
    watched = (
        plan.train.validate_on
        if plan.train.validate_on is not None
        else read_json(ReportPlan, layout.plan("report")).datasets
    )
    validation = {name: usable_images(name) for name in watched if read_json(Verdict, layout.verdict(name)).passed}
    train(plan, seed, usable_images(TRAIN_SET), validation, layout.model(mode, seed), layout.training(mode, seed))
