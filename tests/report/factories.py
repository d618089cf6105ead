"""Experiments written to a folder as the pipeline leaves them, with planted gains."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from densecl import paths
from densecl.artifacts import write_json
from densecl.datasets.storage.manifest import write_manifest
from densecl.seeding import derive_seed
from tests.cost_factory import make_cost

WNIDS = [f"n{10000001 + i}" for i in range(10)]
PROTOCOLS = ("imagenet", "imagenet-a", "imagenet-r", "imagenet-v2", "sketch")


@dataclass
class Planted:
    """`gains` are in top-1, by (mode, set); `redrawn` is the share of images on which chance
    differs from `of_luck` 0.
    """

    gains: Mapping[tuple[str, str], float] = field(default_factory=dict)
    of_luck: int = 0
    modes: tuple[str, ...] = ("dense", "none")
    seeds: tuple[int, ...] = (0,)
    sets: tuple[str, ...] = ("imagenet", "imagenet-r", "sketch")
    images: int = 2000
    redrawn: float = 0.1
    classes: int = 10
    drop: Mapping[str, Iterable[int]] = field(
        default_factory=dict
    )  # set -> numbers of images that are not there
    redone: Mapping[str, Iterable[int]] = field(
        default_factory=dict
    )  # set -> images with another content
    params: Mapping[str, Any] = field(default_factory=lambda: {"contrast": {"temperature": 0.2}})
    manifests: bool = True
    device: str = "a card"

    def rows(self, dataset: str, mode: str, seed: int) -> pd.DataFrame:
        n, shared = self.images, np.random.default_rng(derive_seed(0, dataset, mode, seed))
        label, ease = np.arange(n) % self.classes, shared.random(n)
        own = np.random.default_rng(derive_seed(self.of_luck, "own", dataset, mode, seed))
        fresh = (own.random(n) < self.redrawn) & (self.of_luck > 0)
        correct = np.where(fresh, own.random(n), ease) < 0.5 + self.gains.get((mode, dataset), 0.0)
        confidence = (0.5 + 0.5 * np.where(fresh, own.random(n), ease)).astype("float32")
        frame = pd.DataFrame(
            {
                "image_id": [f"{dataset}/{i:05d}.png" for i in range(n)],
                "label": label,
                "prediction": np.where(correct, label, (label + 1) % self.classes),
                "confidence": confidence,
                "correct": correct,
            }
        )
        return frame.drop(index=list(self.drop.get(dataset, ())))

    def write(self, root: Path) -> Path:
        for dataset in self.sets:
            for mode in self.modes:
                for seed in self.seeds:
                    self._write_cell(root, dataset, mode, seed)
            if self.manifests:
                write_manifest(self._manifest(dataset), root / paths.manifest_file(dataset))
        for mode in self.modes:
            for seed in self.seeds:
                self._write_training(root, mode, seed)
        plan = {
            "modes": self.modes,
            "seeds": self.seeds,
            "datasets": self.sets,
            "params": self.params,
            "values": {"confidence": 0.95},
        }
        write(root / paths.plan_file("report"), plan)
        ratios = {mode: 2.0 for mode in self.modes if mode != "none"}
        write_json(root / paths.COST, make_cost(ratios, device=self.device))
        return root

    def _write_cell(self, root: Path, dataset: str, mode: str, seed: int) -> None:
        rows = self.rows(dataset, mode, seed)
        path = root / paths.predictions_file(dataset, mode, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(path, index=False)
        write(
            root / paths.evaluation_file(dataset, mode, seed),
            {
                "protocol": dataset if dataset in PROTOCOLS else "folder",
                "classes": self.classes,
                "top1": float(rows["correct"].mean()),
                "per_class": dict.fromkeys(WNIDS[: self.classes]),
            },
        )

    def _manifest(self, dataset: str) -> pd.DataFrame:
        kept = [i for i in range(self.images) if i not in set(self.drop.get(dataset, ()))]
        redone = set(self.redone.get(dataset, ()))
        return pd.DataFrame(
            {
                "image_id": [f"{dataset}/{i:05d}.png" for i in kept],
                "path": [f"{i:05d}.png" for i in kept],
                "label": [i % self.classes for i in kept],
                "wnid": [WNIDS[i % self.classes] for i in kept],
                "width": 64,
                "height": 64,
                "bytes": 1000,
                "problem": "",
                "dhash": "",
                "brightness": 0.5,
                "contrast": 0.2,
                "sha256": [f"{i}{' again' * (i in redone)}" for i in kept],
            }
        )

    def _write_training(self, root: Path, mode: str, seed: int) -> None:
        write(
            root / paths.model_folder(mode, seed) / "config.json",
            {"classes": WNIDS[: self.classes]},
        )


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
