"""Classification by frozen features: which images are fitted on and scored, and their features.

Features are of the last block after the final norm: the CLS token, and the mean of the patch
tokens. n images, E features, C classes.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from densecl.artifacts import ProbeMeasure
from densecl.config.params import CONTROL_SET
from densecl.config.probe_params import FrozenFeatureParams
from densecl.datasets.storage.usable_images import load_planned_images
from densecl.errors import DataError
from densecl.evaluation.probing.context import ProbeContext, iter_pixels
from densecl.evaluation.probing.draw import rank_in_classes
from densecl.evaluation.probing.result import ProbeResult, build_measure
from densecl.evaluation.probing.transfer import TransferImages, check_distinct, load_images
from densecl.evaluation.scoring import resolve_model_preprocessing
from densecl.network.precision import use_fp32_products
from densecl.network.vit import forward_tokens
from densecl.runtime.progress import write_progress

# Features [n, E] and labels [n] to fit on, features [m, E] to classify, and C -> labels [m].
Classify = Callable[[Tensor, Tensor, Tensor, int], Tensor]


class ImageFeatures(NamedTuple):
    """Of the images of a set, fp32 on the CPU."""

    cls: Tensor  # [n, E]
    patches: Tensor  # [n, E], their mean


class FeatureSet(NamedTuple):
    """Images with their classes and features."""

    rows: pd.DataFrame  # image_id, source, class
    features: ImageFeatures

    def select(self, chosen: NDArray[np.bool_]) -> "FeatureSet":
        """Those of some rows."""
        index = torch.from_numpy(np.flatnonzero(chosen))
        features = ImageFeatures(*(values[index] for values in self.features))
        return FeatureSet(self.rows[chosen].reset_index(drop=True), features)


def measure_accuracy(
    context: ProbeContext, params: FrozenFeatureParams, classify: Classify
) -> ProbeResult:
    """`cls/<set>` and `patches/<set>`: accuracy on the validation images, fitted on the training
    images, and on each key of `params.sets`, fitted on its value.

    Where datasets may be missing, an entry that cannot be used is a missing measure.
    """
    limit = params.images_per_class
    tasks: dict[str, Callable[[], tuple[FeatureSet, FeatureSet]]] = {
        CONTROL_SET: lambda: (load_training(context, limit), load_validation(context)),
        **{test: partial(load_pair, context, fit, test) for test, fit in params.sets.items()},
    }
    tables: list[pd.DataFrame] = []
    measures: dict[str, ProbeMeasure] = {}
    missing: dict[str, str] = {}
    for name, load_task in tasks.items():
        try:
            fit, test = load_task()
        except DataError as error:
            if not context.plan.optional:
                raise
            reason = " ".join(str(error).split())
            missing |= {f"{kind}/{name}": reason for kind in ImageFeatures._fields}
            continue
        seen = describe_seen(context, name) if name in params.sets else ""
        table, found = score_task(name, fit, test, classify, seen)
        tables.append(table)
        measures |= found
    if not tables:
        raise DataError(next(iter(missing.values())))
    return ProbeResult(pd.concat(tables, ignore_index=True), measures, missing)


def score_task(
    name: str, fit: FeatureSet, test: FeatureSet, classify: Classify, seen: str = ""
) -> tuple[pd.DataFrame, dict[str, ProbeMeasure]]:
    """Rows of the images of `test` with a column per kind of feature, 1.0 where the class is found,
    and the means of these. Classes are those of `fit`; images of others are left out. `seen`: what
    `describe_seen` found of the set, for the note.

    DataError if no image is left.
    """
    classes = {wnid: label for label, wnid in enumerate(sorted(set(fit.rows["class"])))}
    known = test.select(test.rows["class"].isin(list(classes)).to_numpy())
    if known.rows.empty:
        raise DataError(
            f"{name}: none of its {len(test.rows)} images is of the {len(classes)} classes that "
            f"are fitted on, such as {next(iter(classes))}; expected folders of the same names"
        )
    fit_labels, labels = (
        torch.tensor(rows["class"].map(classes).to_numpy(np.int64))
        for rows in (fit.rows, known.rows)
    )
    note = f"fitted on {len(fit.rows)} images of {len(classes)} classes"
    if left_out := len(test.rows) - len(known.rows):
        note += f"; {left_out} images of other classes are left out"
    note += f"; {seen}" * bool(seen)
    table, measures = known.rows[["image_id", "source"]].copy(), {}
    for kind, fitted, asked in zip(
        ImageFeatures._fields, fit.features, known.features, strict=True
    ):
        write_progress(0, 1, f"{kind}/{name}")
        predicted = classify(fitted, fit_labels, asked, len(classes))
        column = f"{kind}/{name}"
        table[column] = (predicted == labels).double().numpy()
        measures[column] = build_measure(table, column, chance=1 / len(classes), note=note)
    return table, measures


def describe_seen(context: ProbeContext, name: str) -> str:
    """How many images and classes of an entry of `transfer` are training images and classes; "" if
    none is.
    """
    unknown = "whether any of its images is a training image is not known"
    if context.plan.training is None:
        return unknown
    try:
        rows = load_planned_images(context.plan.training, ("sha256", "wnid"), fetch=False).frame
    except (DataError, FileNotFoundError):
        return unknown
    frame = load_classified(context, name).frame
    images = int(frame["sha256"].isin(rows["sha256"]).sum())
    classes = sorted(set(frame["class"]) & set(rows["wnid"]))
    parts = [
        f"{images} of its {len(frame)} images are training images" * bool(images),
        f"{len(classes)} of its {frame['class'].nunique()} classes are training classes"
        * bool(classes),
    ]
    return " and ".join(filter(None, parts))


def load_validation(context: ProbeContext) -> FeatureSet:
    rows = context.build_rows().assign(**{"class": context.frame["wnid"].to_numpy()})
    return _keep(context, "validation", rows, context.iter_images)


def load_training(context: ProbeContext, images_per_class: int | None) -> FeatureSet:
    """The training images of the classes that are scored, preprocessed as in evaluation; at most
    `images_per_class` of a class.
    """
    plan = context.plan.training
    if plan is None:
        raise DataError(
            "data/plan/evaluate.json names no training images, which frozen features are fitted "
            "on; `dvc repro plan` writes it anew"
        )
    images = load_planned_images(plan)
    scored = {context.classes[index] for index in context.scored_indices}
    frame = images.frame[images.frame["wnid"].isin(scored)].reset_index(drop=True)
    if images_per_class is not None:
        ranks = rank_in_classes("frozen-features", frame["image_id"], frame["wnid"])
        frame = frame[ranks < images_per_class].reset_index(drop=True)
    preprocessing = resolve_model_preprocessing(
        context.model, images.frame, images.protocol, images.preprocess
    )
    files = [images.root / path for path in frame["path"]]
    rows = frame[["image_id"]].assign(source="", **{"class": frame["wnid"]})
    return _keep(
        context,
        f"training of {images_per_class}",
        rows,
        lambda: iter_pixels(files, preprocessing, context.plan.batch_size),
    )


def load_pair(context: ProbeContext, fit: str, test: str) -> tuple[FeatureSet, FeatureSet]:
    """The images of two entries of `transfer`; of one entry that is both, half of each class to
    fit on and half to score. DataError if an image would be in both.
    """
    entries = {name: load_classified(context, name) for name in (fit, test)}
    if fit != test:
        check_distinct(entries[fit], entries[test])
        return compute_entry(context, entries[fit]), compute_entry(context, entries[test])
    images = compute_entry(context, entries[fit])
    is_fitted = draw_half(entries[fit].frame.assign(image_id=images.rows["image_id"]))
    return images.select(is_fitted), images.select(~is_fitted)


def draw_half(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """[n]: half of the images of each class, of columns image_id, class and sha256; images of one
    content are in the same half, that of the first of them.
    """
    distinct = frame.drop_duplicates("sha256")
    sizes = distinct["class"].map(distinct["class"].value_counts()).to_numpy()
    ranks = rank_in_classes("frozen-features", distinct["image_id"], distinct["class"])
    chosen = distinct["sha256"][2 * ranks < sizes]
    return frame["sha256"].isin(chosen).to_numpy()


def load_classified(context: ProbeContext, name: str) -> TransferImages:
    """The images of an entry of `transfer` that are in folders of classes; DataError if none is."""
    images = load_images(context, name, context.preprocessing.exif)
    images = images.select(images.frame["class"] != "")
    if images.frame.empty:
        raise DataError(
            f"transfer.{name}: no image is in a folder of a class; expected folders of classes in "
            f"{images.params.root}"
        )
    return images


def compute_entry(context: ProbeContext, images: TransferImages) -> FeatureSet:
    rows = images.build_rows().assign(**{"class": images.frame["class"].to_numpy()})
    return _keep(
        context, f"entry {images.name}", rows, lambda: images.iter_images(context.plan.batch_size)
    )


def _keep(
    context: ProbeContext, key: str, rows: pd.DataFrame, iter_images: Callable[[], Iterable[Tensor]]
) -> FeatureSet:
    """The rows with their features, computed once by a process, for all probes of the model."""
    if key not in context.features:
        context.features[key] = compute_features(context, iter_images())
    return FeatureSet(rows, ImageFeatures(*context.features[key]))


def compute_features(context: ProbeContext, batches: Iterable[Tensor]) -> ImageFeatures:
    """Features of uint8 images [B, 3, H, W]."""
    cls: list[Tensor] = []
    patches: list[Tensor] = []
    for images in batches:
        with torch.inference_mode(), use_fp32_products():
            tokens = forward_tokens(context.model, context.normalise(images))
        # A copy: `tokens.cls` is a view that would keep all tokens in memory.
        cls.append(tokens.cls.float().clone().cpu())
        patches.append(tokens.patches.float().mean(1).cpu())
        context.evaluator.predictor.images_run += len(images)
    return ImageFeatures(torch.cat(cls), torch.cat(patches))
