"""Files of probes as evaluations leave them, with planted gains and consistent numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.numpy

from densecl import paths
from densecl.artifacts import ProbeEvaluation, ProbeMeasure, write_json
from densecl.evaluation.probing.result import build_measure
from densecl.seeding import derive_seed

PROBES = ("occlusion", "viewpoint", "segmentation", "correspondence", "corruptions")
SHARES = (0.25, 0.5, 0.75)
WARPS = {"rotation": (15, 30, 60, 90), "translation": (0.1, 0.2, 0.3)}
CORRUPTIONS = ("fog", "snow", "contrast", "pixelate")
CHANCE = 1 / 12
# By mode and probe, added to every value's chance of being right.
Gains = Mapping[tuple[str, str], float]
BASE = {
    "occlusion": 0.5,
    "viewpoint": 0.55,
    "segmentation": 0.4,
    "correspondence": 0.6,
    "corruptions": 0.45,
}


class _Drawer:
    """Columns of outcomes that share their luck between models, like those of models trained alike;
    `level` is the mean.
    """

    def __init__(self, probe: str, mode: str, seed: int, images: int, noise: float) -> None:
        self.images, self.noise = images, noise
        self.ease = np.random.default_rng(derive_seed(0, "ease", probe)).random(images)
        self.own = np.random.default_rng(derive_seed(seed, "own", probe, mode))

    def draw(self, level: float) -> np.ndarray:
        """0 and 1."""
        redrawn = self.own.random(self.images) < self.noise
        luck = np.where(redrawn, self.own.random(self.images), self.ease)
        return (luck < level).astype(float)


def write_probe(
    root: Path,
    probe: str,
    mode: str,
    seed: int | None,
    gains: Gains | None = None,
    images: int = 480,
    noise: float = 0.1,
    base: Mapping[str, float] = BASE,
) -> pd.DataFrame:
    """Write the files of one probe of one model; return its rows."""
    level = base[probe] + (gains or {}).get((mode, probe), 0.0)
    rows = pd.DataFrame(
        {"image_id": [f"{probe}/{i:04d}.png" for i in range(images)], "source": np.arange(images)}
    )
    rows["source"] = "photograph " + rows["source"].astype(str)
    drawer = _Drawer(probe, mode, seed or 0, images, noise)
    measures = DRAWN[probe](rows, drawer, level)
    path = root / paths.probe_rows_file(probe, mode, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(path, index=False)
    evaluation = ProbeEvaluation(probe=probe, mode=mode, seed=seed, measures=measures)
    write_json(root / paths.probe_file(probe, mode, seed), evaluation)
    if probe == "segmentation" and seed is not None:
        write_pictures(root, mode, seed)
    return rows


def _draw_curve(
    rows: pd.DataFrame, drawer: _Drawer, curve: str, strengths: Sequence[float], level: float
) -> dict[str, ProbeMeasure]:
    """Accuracy that falls with the strength, and the area under it from 0."""
    top = max(strengths)
    plain = drawer.draw(level + 0.2)
    columns = [drawer.draw(level + 0.2 - 0.25 * s / top) for s in strengths]
    for strength, column in zip(strengths, columns, strict=True):
        rows[f"{curve}/{strength}"] = column
    x = [0.0, *strengths]
    rows[f"{curve}/area"] = np.trapezoid(np.column_stack([plain, *columns]), x, axis=1) / top
    measures = {
        f"{curve}/{s}": build_measure(
            rows, f"{curve}/{s}", chance=CHANCE, curve=curve, strength=float(s)
        )
        for s in strengths
    }
    return measures | {f"{curve}/area": build_measure(rows, f"{curve}/area", chance=CHANCE)}


def _draw_occlusion(rows: pd.DataFrame, drawer: _Drawer, level: float) -> dict[str, ProbeMeasure]:
    return {
        **_draw_curve(rows, drawer, "random", SHARES, level),
        **_draw_curve(rows, drawer, "salient", SHARES, level - 0.1),
    }


def _draw_viewpoint(rows: pd.DataFrame, drawer: _Drawer, level: float) -> dict[str, ProbeMeasure]:
    measures: dict[str, ProbeMeasure] = {}
    for warp, strengths in WARPS.items():
        measures |= _draw_curve(rows, drawer, warp, strengths, level)
    rows["area"] = rows[[f"{warp}/area" for warp in WARPS]].mean(axis=1)
    return measures | {"area": build_measure(rows, "area", chance=CHANCE)}


def _draw_segmentation(
    rows: pd.DataFrame, drawer: _Drawer, level: float
) -> dict[str, ProbeMeasure]:
    """Real values that may lie outside [0, 1], as those of a linearised ratio."""
    measures = {}
    for kind, shift in (("linear", 0.0), ("neighbours", -0.08)):
        for block in (2, 3, 4, "chosen"):
            name = f"{kind}/{block}"
            rows[name] = level + shift + 0.7 * (drawer.draw(0.5) - 0.5)
            options = {"curve": kind, "strength": float(block)} if block != "chosen" else {}
            measures[name] = build_measure(rows, name, chance=0.1, **options)
    return measures


def _draw_correspondence(
    rows: pd.DataFrame, drawer: _Drawer, level: float
) -> dict[str, ProbeMeasure]:
    measures = {}
    for reach in (1, 2):
        for block in (1, 2, 3, 4):
            name = f"pck{reach}/{block}"
            rows[name] = (drawer.draw(level) + 0.1 * reach + 0.02 * block) / 1.3
            curve = f"pck{reach}"
            measures[name] = build_measure(
                rows, name, chance=0.09 * reach, curve=curve, strength=float(block)
            )
    return measures


def _draw_corruptions(rows: pd.DataFrame, drawer: _Drawer, level: float) -> dict[str, ProbeMeasure]:
    measures = {}
    for number, corruption in enumerate(CORRUPTIONS):
        for severity in (1, 2, 3, 4, 5):
            name = f"{corruption}/{severity}"
            rows[name] = drawer.draw(level + 0.2 - 0.06 * severity - 0.03 * number)
            measures[name] = build_measure(
                rows, name, chance=CHANCE, curve=corruption, strength=float(severity)
            )
    columns = list(measures)
    rows["error"] = 1 - rows[columns].mean(axis=1)
    return measures | {
        "error": build_measure(rows, "error", chance=1 - CHANCE, higher_is_better=False)
    }


DRAWN = {
    "occlusion": _draw_occlusion,
    "viewpoint": _draw_viewpoint,
    "segmentation": _draw_segmentation,
    "correspondence": _draw_correspondence,
    "corruptions": _draw_corruptions,
}


def write_pictures(root: Path, mode: str, seed: int, count: int = 4, side: int = 48) -> None:
    """A disc on a gradient; the prediction is the truth, moved by some px of the mode's own."""
    y, x = np.mgrid[:side, :side]
    truth = np.stack(
        [((y - 20) ** 2 + (x - 18 - 4 * i) ** 2 < 150) * (i % 3 + 1) for i in range(count)]
    ).astype("uint8")
    shift = {"dense": 2, "global": 5, "none": 8}[mode] + seed
    image = np.stack([[255 * y / side, 255 * x / side, 0 * x + 60 * i] for i in range(count)])
    pictures = {
        "image": image.astype("uint8"),
        "truth": truth,
        "prediction": np.ascontiguousarray(np.roll(truth, shift, axis=2)),
    }
    safetensors.numpy.save_file(
        pictures, root / paths.probe_pictures_file("segmentation", mode, seed)
    )


def write_probes(
    root: Path,
    modes: Sequence[str] = ("dense", "global", "none"),
    seeds: Sequence[int] = (0,),
    gains: Gains | None = None,
    base: Mapping[str, float] = BASE,
) -> None:
    """All probes of all models."""
    for probe in PROBES:
        for mode in modes:
            for seed in seeds:
                write_probe(root, probe, mode, seed, gains, base=base)
