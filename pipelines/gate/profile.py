"""The distribution of a dataset in a few kilobytes: what later images are compared with after the
manifest is gone.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from densecl import paths
from densecl.artifacts import Artifact
from densecl.config.params import Params
from densecl.config.titles import show_title
from densecl.datasets.storage.manifest import read_manifest, select_usable
from pipelines.gate.psi import (
    FeatureHistogram,
    build_histogram,
    compute_chance_psi,
    compute_psi,
    count_bins,
)
from pipelines.schemas import DistributionShift, ReferenceDrift

FEATURES = ("class", "brightness", "contrast", "width", "height", "bytes")


class DatasetProfile(Artifact):
    """Usable images of a dataset, and their histograms by feature; without images none."""

    images: int
    histograms: dict[str, FeatureHistogram]


class DataProfile(Artifact):
    """All datasets that a version was trained and evaluated on, by name."""

    datasets: dict[str, DatasetProfile]


class ReferenceProfile(NamedTuple):
    """The profile of a version that the current images are compared with."""

    name: str  # in words, such as champion's data
    version: str
    profile: DataProfile


def build_profile(params: Params, root: Path = Path()) -> DataProfile:
    """The profile of the current manifests."""
    return DataProfile(
        datasets={
            name: build_dataset_profile(
                select_usable(read_manifest(root / paths.manifest_file(name)))
            )
            for name in params.datasets
        }
    )


def build_dataset_profile(usable: pd.DataFrame) -> DatasetProfile:
    """The profile of the usable rows of a manifest."""
    features = FEATURES if len(usable) else ()
    return DatasetProfile(
        images=len(usable),
        histograms={f: build_histogram(_select_feature(usable, f)) for f in features},
    )


def measure_shift(dataset: str, before: DatasetProfile, now: pd.DataFrame) -> DistributionShift:
    """Classes that came and went, and the PSI of each feature; none if one side has no images."""
    features = FEATURES if before.images and len(now) else ()
    counts = {f: count_bins(before.histograms[f], _select_feature(now, f)) for f in features}
    classes_before = set(before.histograms["class"].counts) if before.images else set()
    classes_now = set(now["wnid"].unique())
    return DistributionShift(
        dataset=dataset,
        images=len(now),
        before=before.images,
        classes_new=tuple(sorted(classes_now - classes_before)),
        classes_removed=tuple(sorted(classes_before - classes_now)),
        psi={feature: compute_psi(bins) for feature, bins in counts.items()},
        chance={feature: compute_chance_psi(bins) for feature, bins in counts.items()},
    )


def measure_reference_drift(
    params: Params, references: Sequence[ReferenceProfile], root: Path = Path()
) -> Iterator[ReferenceDrift]:
    """The current manifests, dataset by dataset, against the profiles of some versions."""
    for name, dataset in params.datasets.items():
        now = select_usable(read_manifest(root / paths.manifest_file(name)))
        for reference in references:
            before = reference.profile.datasets.get(name)
            shift = measure_shift(name, before or build_dataset_profile(now.iloc[:0]), now)
            values = shift.model_dump() | {"title": show_title(dataset.title, "")}
            values |= {} if before else {"before": None, "classes_new": ()}
            yield ReferenceDrift(reference=reference.name, version=reference.version, **values)


def _select_feature(usable: pd.DataFrame, feature: str) -> pd.Series:
    return usable["wnid" if feature == "class" else feature].dropna()
