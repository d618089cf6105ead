"""Accuracy on the corruptions of ImageNet-C (Hendrycks and Dietterich 2019), made from the
validation images as they are evaluated. N images, K conditions: a corruption at a severity.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from densecl.artifacts import ProbeMeasure
from densecl.config.probe_params import CorruptionParams
from densecl.evaluation.corruptions.corrupt import CORRUPTIONS, Corruption, corrupt_image
from densecl.evaluation.corruptions.frost import read_frost
from densecl.evaluation.corruptions.scaling import PUBLISHED_SIDE, get_published_shape
from densecl.evaluation.corruptions.weather import add_frost
from densecl.evaluation.imagenet_c import ALEXNET_ERRORS, FOLDERS, SEVERITIES
from densecl.evaluation.predict import iter_batches
from densecl.evaluation.probing.context import ProbeContext
from densecl.evaluation.probing.result import ProbeResult, build_measure
from densecl.evaluation.protocols import is_imagenet
from densecl.network.preprocessing import build_image_loader
from densecl.runtime.hardware import count_workers
from densecl.runtime.progress import write_progress

MEAN, MCE, MCE_TO_ALEXNET = "mean", "mce", "mce_with_alexnet"
NO_FROST = (
    "needs the authors' photographs of frost: set evaluate.probes.corruptions.frost to their "
    "folder, or install the package imagecorruptions, which has them (docs/probes/corruptions.md)"
)


class Condition(NamedTuple):
    corruption: str
    severity: int

    @property
    def column(self) -> str:
        return f"{self.corruption}/{self.severity}"


def measure(context: ProbeContext, params: CorruptionParams) -> ProbeResult:
    """Accuracy under each condition, their means, and mCE where it is defined."""
    corruptions = load_corruptions(params, context.preprocessing.input_size[1:])
    conditions = [Condition(name, n) for name in corruptions for n in params.severities]
    correct = compute_correct(context, corruptions, conditions)
    columns = build_columns(pd.DataFrame(correct, columns=[c.column for c in conditions]))
    missing = {name: NO_FROST for name in params.names if name not in corruptions}
    missing |= find_obstacles(context, conditions, missing)
    columns = columns.drop(columns=list(missing), errors="ignore")
    rows = pd.concat([context.build_rows(), columns], axis=1)
    chance = 1 / len(context.scored_indices)
    measures = {str(name): _build_measure(rows, str(name), chance) for name in columns}
    if MEAN in measures:  # with and without frost it is not the same number
        note = f"mean over the {len(corruptions)} corruptions measured"
        measures[MEAN] = measures[MEAN].model_copy(update={"note": note})
    return ProbeResult(rows, measures, missing, tuple(describe_images(context, params)))


def load_corruptions(params: CorruptionParams, size: tuple[int, int]) -> dict[str, Corruption]:
    """The chosen corruptions of images of `size` by name; without photographs, no frost."""
    known = dict(CORRUPTIONS)
    if "frost" in params.names and params.frost_folder:
        known["frost"] = partial(
            add_frost, read_frost(Path(params.frost_folder), get_published_shape(size))
        )
    return {name: known[name] for name in params.names if name in known}


class CorruptedImages(Dataset[tuple[Tensor, int]]):
    """Of each image all its corrupted copies, uint8 [K, 3, H, W], and its row number: an image is
    decoded once.
    """

    def __init__(
        self,
        images: Dataset[tuple[Tensor, int]],
        image_ids: Sequence[str],
        corruptions: Mapping[str, Corruption],
        conditions: Sequence[Condition],
    ) -> None:
        self.images, self.image_ids = images, image_ids
        self.corruptions, self.conditions = corruptions, conditions

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        image = self.images[row][0].permute(1, 2, 0).numpy()
        copies = [
            corrupt_image(image, name, severity, self.image_ids[row], self.corruptions[name])
            for name, severity in self.conditions
        ]
        return torch.from_numpy(np.stack(copies)).permute(0, 3, 1, 2).contiguous(), row


def compute_correct(
    context: ProbeContext, corruptions: Mapping[str, Corruption], conditions: Sequence[Condition]
) -> NDArray[np.float64]:
    """1.0 where the prediction is the label, [N, K], in the order of `context.frame`."""
    frame, batch_size = context.frame, context.plan.batch_size
    correct = torch.zeros(len(frame), len(conditions), dtype=torch.float64)
    if not conditions:
        return correct.numpy()
    files = [context.validation.root / path for path in frame["path"]]
    images = build_image_loader(files, context.preprocessing, batch_size).dataset
    dataset = CorruptedImages(images, frame["image_id"].tolist(), corruptions, conditions)
    labels = frame["label"].tolist()
    for copies, row in iter_copies(dataset, batch_size):
        write_progress(row, len(frame), "corruptions")
        predicted = [context.compute_logits(batch).argmax(1) for batch in copies.split(batch_size)]
        correct[row] = torch.cat(predicted) == labels[row]
    return correct.numpy()


def iter_copies(dataset: CorruptedImages, batch_size: int) -> Iterator[tuple[Tensor, int]]:
    """The items of the dataset in order, made by worker processes where there are many."""
    copies = len(dataset) * len(dataset.conditions)
    loader: DataLoader[tuple[Tensor, int]] = DataLoader(
        dataset,
        batch_size=None,
        num_workers=count_workers() if copies > batch_size else 0,
        # A generator of its own: starting workers must not advance the global one.
        generator=torch.Generator(),
    )
    for images, row in iter_batches(loader):
        yield images, int(row)


def build_columns(correct: pd.DataFrame) -> pd.DataFrame:
    """A column per measure, of the columns `<corruption>/<severity>` of right answers."""
    corruption_of = [str(name).split("/")[0] for name in correct]
    means = correct.T.groupby(corruption_of, sort=False).mean().T
    errors = 1 - means[[name for name in ALEXNET_ERRORS if name in means]]
    summaries = pd.DataFrame(
        {
            MEAN: correct.mean(axis=1),
            MCE: errors.mean(axis=1),
            MCE_TO_ALEXNET: errors.div(pd.Series(ALEXNET_ERRORS)).mean(axis=1),
        }
    )
    return pd.concat([summaries, means.add_suffix("/mean"), correct], axis=1)


def _build_measure(rows: pd.DataFrame, name: str, chance: float) -> ProbeMeasure:
    if name == MEAN:
        return build_measure(rows, name, chance=chance)
    if name == MCE:
        return build_measure(rows, name, chance=1 - chance, higher_is_better=False)
    if name == MCE_TO_ALEXNET:
        alexnet = sum(1 / error for error in ALEXNET_ERRORS.values()) / len(ALEXNET_ERRORS)
        return build_measure(rows, name, chance=(1 - chance) * alexnet, higher_is_better=False)
    corruption, severity = name.split("/")
    strength = None if severity == "mean" else float(severity)
    return build_measure(rows, name, chance=chance, curve=corruption, strength=strength)


def find_obstacles(
    context: ProbeContext, conditions: Sequence[Condition], missing: Mapping[str, str]
) -> dict[str, str]:
    """Why a summary has no value, by its name."""
    if not conditions:
        return dict.fromkeys((MEAN, MCE, MCE_TO_ALEXNET), NO_FROST)
    counted = [c for c in conditions if c.corruption in ALEXNET_ERRORS]
    if len(counted) < FOLDERS:
        corruptions = len({c.corruption for c in counted})
        reason = (
            f"needs all {len(ALEXNET_ERRORS)} corruptions at {len(SEVERITIES)} severities, found "
            f"{corruptions} at {len({c.severity for c in counted})}"
        )
        reason += "".join(f"; {name} {why}" for name, why in missing.items())
        return {MCE: reason, MCE_TO_ALEXNET: reason}
    if not is_imagenet([context.classes[index] for index in context.scored_indices]):
        return {MCE_TO_ALEXNET: "needs images of the 1000 classes of ImageNet-1k"}
    if set(context.preprocessing.input_size[1:]) != {PUBLISHED_SIDE}:
        return {MCE_TO_ALEXNET: f"needs a model of {PUBLISHED_SIDE} px"}
    return {}


def describe_images(context: ProbeContext, params: CorruptionParams) -> Iterator[str]:
    """What a reader must know of the corrupted images."""
    height, width = context.preprocessing.input_size[1:]
    if {height, width} != {PUBLISHED_SIDE}:
        yield (
            f"images of {width} x {height} px: ImageNet-C is defined for {PUBLISHED_SIDE} px; its "
            "lengths are scaled with the side, its noise is not; not comparable with published "
            "values"
        )
    if "frost" in params.names and params.frost is None and params.frost_folder:
        yield "photographs of frost: those of the installed package imagecorruptions"
