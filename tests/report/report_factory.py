"""Evaluations and trainings with planted differences, and what a page and a table made from them
hold.
"""

import io
import zipfile
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from densecl import paths
from densecl.artifacts import (
    Evaluation,
    MatchedControl,
    Preprocessing,
    ReportPlan,
    TrainingFacts,
    write_json,
)
from densecl.config.params import ReportParams
from densecl.datasets.storage.manifest import write_manifest
from densecl.evaluation.metrics import compute_dataset_metrics, compute_metrics
from densecl.evaluation.protocols import PROTOCOLS
from densecl.monitoring.training_records import TrainingRecords
from densecl.seeding import derive_seed
from tests.cost_factory import make_cost, make_record

HOSTILE = "<script>\x1balert('x')</script>|[a](b)"
FILE = "<img src=x onerror=alert(1)>\"'\n`|[a](b)"  # in the names of sketch's files
CLASS = 'n3"><img src=y onerror=alert(2)>\n|`[a](b)'  # the folder of class 3
SETS = {
    "imagenet": 12,
    "imagenet-a": 6,
    "imagenet-r": 6,
    "imagenet-v2": 12,
    "sketch": 5,
    "stylized": 9,
}
IMAGES = {
    "imagenet": 960,
    "imagenet-a": 400,
    "imagenet-r": 1500,
    "imagenet-v2": 900,
    "sketch": 1500,
    "stylized": 700,
}
BASE = {
    "imagenet": 0.72,
    "imagenet-a": 0.3,
    "imagenet-r": 0.45,
    "imagenet-v2": 0.64,
    "sketch": 0.4,
    "stylized": 0.33,
}
PLANTED = {
    ("dense", "imagenet-r"): 0.05,
    ("dense", "sketch"): 0.06,
    ("dense", "stylized"): 0.07,
    # A variant of dense; one that is not named here is as good as none.
    **{("geometric", dataset): 0.17 for dataset in SETS if dataset != "imagenet"},
}
# Files as such sets name them; a texture class 9 is none of the set's.
NAMES = {
    "": lambda i, c: f"{i:05d}.png",
    "rendition": lambda i, c: f"{('art', 'toy')[i % 2]}_{i}.jpg",
    "imagenet-a": lambda i, c: f"a{i:05d}.png",
    "imagenet-v2": lambda i, c: f"v{i:05d}.png",
    "sketch": lambda i, c: f"{i:05d}{FILE}.png",
    "cue-conflict": lambda i, c: (
        f"thing{'abcdefghij'[c]}{i}-thing{'abcdefghij'[(c + 1 + i % 3) % 10]}1.png"
    ),
}
PREPROCESSING = Preprocessing(
    rule="model",
    input_size=(3, 64, 64),
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    interpolation="bicubic",
    crop_pct=1.0,
    crop_mode="center",
)


def predictions(dataset: str, mode: str, seed: int, classes: int) -> pd.DataFrame:
    """Outcomes that share most of their luck between modes and seeds, as models trained alike
    do.
    """
    n, shared = IMAGES[dataset], np.random.default_rng(derive_seed(0, dataset))
    label, ease = shared.integers(0, classes, n), shared.random(n)
    rng = np.random.default_rng(derive_seed(seed, dataset, mode))
    # A tenth of the images is drawn anew for each model; the planted gain is on all.
    luck = np.where(rng.random(n) < 0.1, rng.random(n), ease)
    correct = luck < BASE[dataset] + PLANTED.get((mode, dataset), 0.0)
    prediction = np.where(correct, label, (label + 1) % classes)
    unmasked = correct & (rng.random(n) < 0.9)
    confidence = rng.uniform(0.3, 1, n).astype("float32")
    name = NAMES.get(dataset) or NAMES[PROTOCOLS[dataset].names]
    return pd.DataFrame(
        {
            "image_id": [f"{dataset}/{name(i, c)}" for i, c in enumerate(label)],
            "label": label,
            "prediction": prediction,
            "prediction_unmasked": prediction,
            "confidence": confidence,
            "confidence_unmasked": confidence,
            "p_true": confidence,
            "correct": correct,
            "correct5": correct | (luck < 0.85),
            "correct_unmasked": unmasked,
            "correct5_unmasked": unmasked | (luck < 0.8),
        }
    )


def write_cell(root: Path, dataset: str, mode: str, seed: int) -> None:
    rows, control = predictions(dataset, mode, seed, SETS[dataset]), None
    path = root / paths.predictions_file(dataset, mode, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(path)
    if dataset != "imagenet":
        clean = predictions("imagenet", mode, seed, SETS["imagenet"])
        file = paths.predictions_file("imagenet", mode, seed)
        if SETS[dataset] < SETS["imagenet"]:
            clean = clean[clean["label"] < SETS[dataset]]
            file = paths.control_predictions_file(dataset, mode, seed)
            clean.to_parquet(root / file)
        control = MatchedControl(
            dataset="imagenet",
            images=len(clean),
            top1=clean["correct"].mean(),
            top5=clean["correct5"].mean(),
            predictions=str(file),
        )
    classes = [f"n{i:08d}" for i in range(12)]
    write_json(
        root / paths.evaluation_file(dataset, mode, seed),
        Evaluation(
            dataset=dataset,
            protocol=dataset,
            mode=mode,
            seed=seed,
            images=len(rows),
            excluded=0,
            outside=0,
            shortfall="",
            classes=SETS[dataset],
            control=control,
            preprocessing=PREPROCESSING,
            **compute_metrics(rows),
            **compute_dataset_metrics(rows, dataset, classes, control),
        ),
    )


def write_training(root: Path, mode: str, seed: int) -> None:
    epochs, rng = np.arange(1, 21), np.random.default_rng(derive_seed(seed, mode))
    learnt, size = 1 - np.exp(-epochs / 7), {"global": 8192, "none": 0}.get(mode, 65536)
    history = pd.DataFrame(
        {
            "epoch": epochs,
            "classification_loss": 2.5 - 1.8 * learnt + rng.normal(0, 0.03, 20),
            "train_top1": 0.1 + 0.6 * learnt,
        }
    )
    contrast = {
        "contrastive_loss": 9 - 5 * learnt,
        "contrastive_chance": np.log(1 + size),
        "pretext_top1": learnt,
        "positive_similarity": 0.5 + 0.4 * learnt,
        "negative_similarity": 0.3 - 0.2 * learnt,
        "queue_unique_images": np.minimum(epochs * 800, 1311),
        "queue_filled": np.minimum(epochs * 9000, size),
    }
    for name, values in contrast.items():
        history[name] = values if mode != "none" else np.nan
    history["effective_rank"] = 8 + 40 * learnt
    for dataset, base in BASE.items():
        history[f"top1/{dataset}"] = base * learnt + rng.normal(0, 0.01, 20)
    folder = root / paths.training_folder(mode, seed)
    folder.mkdir(parents=True, exist_ok=True)
    history.to_csv(folder / "history.csv", index=False)
    facts = TrainingFacts(fingerprint=f"{mode}-{seed}", batch_size=64, queue_size_effective=size)
    write_json(folder / "training.json", facts)


STEPS = {"dense": 1.55, "global": 1.2, "none": 1.0, "geometric": 1.3}  # against none
RECORDS = TrainingRecords(
    {f"{m}-{s}": make_record(320 / STEPS[m]) for m in STEPS for s in range(3)}, ""
)


def make(
    root: Path,
    modes: tuple[str, ...] = ("dense", "global", "none"),
    seeds: tuple[int, ...] = (0,),
    variants: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> ReportPlan:
    """`variants` as in params; `modes` names those of them that were run."""
    for mode in modes:
        for seed in seeds:
            write_training(root, mode, seed)
            for dataset in SETS:
                write_cell(root, dataset, mode, seed)
    write_json(root / paths.COST, make_cost({m: STEPS[m] for m in modes if m in STEPS}))
    roots = {s: {"root": f"data/rendered/{s}", "tracked_by": f"data/rendered/{s}"} for s in SETS}
    return ReportPlan(
        modes=modes,
        seeds=seeds,
        datasets=tuple(SETS),
        protocols={s: s for s in SETS},
        rendered=tuple(SETS),
        values=ReportParams(),
        variants={name: variants[name]["base"] for name in modes if name in variants},
        params={"modes": list(modes), "datasets": roots, "network": {"model_name": HOSTILE}}
        | ({"variants": dict(variants)} if variants else {}),
    )


def plant_images(root: Path, dataset: str, packed: bool = False) -> None:
    """A manifest of the set and its files, all the same picture: a folder, or a .zip in its
    place.
    """
    rows = predictions(dataset, "none", 0, SETS[dataset])
    files = rows["image_id"].str.removeprefix(f"{dataset}/")
    content = io.BytesIO()
    Image.new("RGB", (200, 120), (200, 80, 20)).save(content, "PNG")
    place = root / "data" / "rendered" / dataset
    place.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        with zipfile.ZipFile(place, "w") as archive:
            for path in files:
                archive.writestr(path, content.getvalue())
    else:
        place.mkdir()
        for path in files:
            (place / path).write_bytes(content.getvalue())
    write_manifest(_listed(rows, files), root / paths.manifest_file(dataset))


def plant_classes(root: Path) -> None:
    """The training manifest, of which the page reads the names of classes only."""
    labels = pd.DataFrame(
        {"image_id": [f"imagenet-train/{c}.png" for c in range(12)], "label": range(12)}
    )
    write_manifest(
        _listed(labels, labels["image_id"]), root / paths.manifest_file("imagenet-train")
    )


def _listed(rows: pd.DataFrame, files: pd.Series) -> pd.DataFrame:
    wnids = rows["label"].map({c: CLASS if c == 3 else f"n9000{c:04d}" for c in range(12)})
    return pd.DataFrame(
        {
            "image_id": rows["image_id"],
            "path": files,
            "label": rows["label"],
            "wnid": wnids,
            "width": 200,
            "height": 120,
            "bytes": 1,
            "sha256": "",
            "problem": "",
            "dhash": "",
            "brightness": 0.5,
            "contrast": 0.1,
        }
    )


def read(root: Path) -> pd.DataFrame:
    gaps = {c: [""] for c in ("value", "low", "high", "images")}
    return pd.read_csv(
        root / paths.COMPARISON, keep_default_na=False, na_values=gaps, dtype={"seeds": str}
    )


def value(rows: pd.DataFrame, dataset: str, mode: str, metric: str) -> pd.Series:
    found = rows[(rows["dataset"] == dataset) & (rows["mode"] == mode) & (rows["metric"] == metric)]
    assert len(found) == 1, (dataset, mode, metric)
    return found.iloc[0]


class Page(HTMLParser):
    """What a browser would load, run or show of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.unlabelled = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.loads += [
            v
            for k, v in attrs
            if v and k in ("src", "href", "xlink:href", "action", "poster", "srcset", "data")
        ]
        self.ids += [v for k, v in attrs if k == "id" and v]
        self.unlabelled += (tag == "svg" and not given.get("aria-label")) or (
            tag == "img" and not given.get("alt")
        )
