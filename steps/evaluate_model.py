"""Evaluate a model of `evaluate.models` as those that are trained here are evaluated."""

from densecl import paths
from densecl.config.params import TRAIN_SET
from densecl.datasets.storage.manifest import read_manifest
from densecl.evaluation.other_models import load_other_model, select_classes
from densecl.evaluation.score import ModelEvaluator
from densecl.network.preprocessing import set_orientation
from densecl.runtime.hardware import reuse_freed_memory
from steps.evaluate import open_plan, write_cells


def main(name: str) -> None:
    """Write the predictions and metrics of every dataset and every probe.

    Of the model's outputs, those of the training set's classes are kept, in the order of the
    training set: the models that are trained here choose among the same classes.
    """
    reuse_freed_memory()
    model, config = load_other_model(paths.model_folder(name, None))
    labels = read_manifest(paths.manifest_file(TRAIN_SET))[["label", "wnid"]].drop_duplicates()
    wnids = labels.sort_values("label")["wnid"].tolist()
    classes = select_classes(model, config["classes"], wnids)
    print(f"{name}: knows {len(classes)} of the {len(wnids)} classes of {TRAIN_SET}", flush=True)
    plan, cache = open_plan()
    set_orientation(model, plan.datasets[0].exif)  # the pixels that the modes see
    write_cells(ModelEvaluator(model, classes, name, None, plan, cache, wnids), plan, cache)
