"""One cell of the table: one model on one set, with its matched control."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import load_model

from densecl import layout
from densecl.network.preprocessing import preprocessing
from densecl.network.vit import Backbone, build
from densecl.params import CONTROL_SET, Network
from densecl.records import Control, EvaluatePlan, Evaluation, Verdict, read_json, write_json
from densecl.robustness.evaluation import figures, no_rows, predict
from densecl.robustness.protocols import scored_classes
from steps.images import ImageSet, usable_images


def load_exported(folder: Path) -> tuple[Backbone, dict[str, Any]]:
    """The model that a training left in `folder`, and its config."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = build(Network(model_name=config["architecture"], model_args=config["model_args"]), config["num_classes"], 0)
    load_model(model, folder / "model.safetensors")
    return model.eval(), config


def main(set: str, mode: str, seed: int) -> None:
    """Write the cell's predictions, its control's and its figures."""
    batch_size = read_json(EvaluatePlan, layout.plan("evaluate")).batch_size
    model, config = load_exported(layout.model(mode, seed))
    images, control_images = usable_images(set), usable_images(CONTROL_SET)
    scored = scored_classes(set, images.frame, config["classes"])

    def rows(of: ImageSet) -> pd.DataFrame:
        return predict(model, of.frame, of.root, preprocessing(model, of.preprocess), scored, batch_size)

    predictions, control, control_rows = rows(images), None, no_rows()
    if set != CONTROL_SET:
        frame = control_images.frame
        control_rows = rows(replace(control_images, frame=frame[frame["label"].isin(scored)]))
        control = Control(
            dataset=CONTROL_SET, images=len(control_rows), top1=float(control_rows["correct"].mean()),
            top5=float(control_rows["correct5"].mean()), predictions=layout.control_predictions(set, mode, seed).as_posix(),
        )  # fmt: skip
    for path, table in (
        (layout.predictions(set, mode, seed), predictions),
        (layout.control_predictions(set, mode, seed), control_rows),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(path, index=False)
    record = Evaluation(
        dataset=set, mode=mode, seed=seed, images=len(predictions), classes=len(scored), control=control,
        excluded=len(read_json(Verdict, layout.verdict(set)).excluded),
        preprocessing=preprocessing(model, images.preprocess), **figures(predictions),
    )  # fmt: skip
    write_json(layout.evaluation(set, mode, seed), record)
    print(f"{set} {mode}-{seed}: top-1 {record.top1:.3f} of {record.images} images over {record.classes} classes")
