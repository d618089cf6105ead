"""What changed, from manifests with planted changes; PSI against a slow re-derivation and cases
done by hand.
"""

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from densecl import paths
from densecl.config.params import Params, parse_params
from densecl.datasets.storage.manifest import write_manifest
from densecl.errors import DataError
from densecl.runtime import source_hash
from densecl.runtime.atomic_files import create_atomic_folder
from densecl.training.fingerprint import TRAINING_CODE
from pipelines.gate.change_text import describe_shift, format_changes
from pipelines.gate.drift import compute_changes, write_baseline
from pipelines.gate.profile import (
    DataProfile,
    ReferenceProfile,
    build_profile,
    measure_reference_drift,
)
from pipelines.gate.psi import (
    SMOOTHING,
    BinCounts,
    build_histogram,
    compute_chance_psi,
    compute_psi,
    count_bins,
)
from pipelines.schemas import DatasetDrift, SourceChanges
from tests.pipelines.factories import CLASSES, small_params

SETS = ("imagenet-train", "imagenet", "sketch")


def manifest(
    dataset: str, wnids: tuple[str, ...] = CLASSES, per_class: int = 30, seed: int = 0
) -> pd.DataFrame:
    rng = np.random.default_rng([seed, *dataset.encode()])
    files = [f"{wnid}/{number}.jpg" for wnid in wnids for number in range(per_class)]
    n = len(files)
    return pd.DataFrame(
        {
            "image_id": [f"{dataset}/{path}" for path in files],
            "path": files,
            "label": [wnids.index(path.split("/")[0]) for path in files],
            "wnid": [path.split("/")[0] for path in files],
            "width": np.full(n, 64, np.int32),
            "height": rng.choice([64, 80, 96], n).astype(np.int32),
            "bytes": rng.integers(1000, 9000, n),
            "sha256": [rng.bytes(32).hex() for _ in files],
            "problem": "",
            "dhash": "",
            "brightness": rng.beta(4, 4, n).astype(np.float32),
            "contrast": rng.beta(2, 8, n).astype(np.float32),
        }
    )


def params_of(**changed: object) -> Params:
    values = small_params(SETS[1:]).model_dump(mode="json", by_alias=True)
    values["datasets"] = {name: {"root": name, "tracked_by": name} for name in SETS}
    values["render"] = {}
    for key, value in changed.items():
        section, name = key.split("__")
        values[section][name] = value
    return parse_params(values, "params.yaml")


def remember(params: Params, changes: SourceChanges, root: Path) -> None:
    with create_atomic_folder(root / paths.BASELINE) as folder:
        write_baseline(params, changes, folder, root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three sets, as they were when the last candidate was judged."""
    for name in SETS:
        write_manifest(manifest(name), tmp_path / paths.manifest_file(name))
    remember(params_of(), compute_changes(params_of(), tmp_path), tmp_path)
    return tmp_path


def edit(root: Path, name: str, new: pd.DataFrame) -> DatasetDrift:
    write_manifest(new, root / paths.manifest_file(name))
    return next(each for each in compute_changes(params_of(), root).sets if each.dataset == name)


def test_nothing_changed(root):
    found = compute_changes(params_of(), root)
    assert not found.has_changes
    assert [
        (s.dataset, s.images, s.before, s.new, s.removed, s.changed, s.evidence) for s in found.sets
    ] == [(name, 300, 300, 0, 0, 0, ()) for name in SETS]
    assert {value for each in found.sets for value in each.psi.values()} == {0.0}
    assert format_changes(found).splitlines() == [
        "imagenet-train: unchanged, 300 images",
        "imagenet: unchanged, 300 images",
        "sketch: unchanged, 300 images",
        "",
        "Nothing changed since the last judged candidate: none is trained or judged (--force judges "
        "the same one again).",
    ]


def test_without_a_baseline_everything_is_new(root):
    for path in (root / paths.BASELINE).iterdir():
        path.unlink()
    found = compute_changes(params_of(), root)
    assert found.has_changes
    assert [(s.images, s.before, s.new, s.psi) for s in found.sets] == [(300, None, 300, {})] * 3
    assert found.params == ()
    assert "everything is new, and a candidate is judged" in format_changes(found)


def test_images_that_moved_to_another_class_are_counted_as_such(root):
    now = manifest("imagenet-train")
    moved = now["path"].isin([f"{CLASSES[0]}/{number}.jpg" for number in range(7)])
    now.loc[moved, ["wnid", "label"]] = [CLASSES[1], 1]
    now.loc[moved, "path"] = [f"{CLASSES[1]}/moved_{number}.jpg" for number in range(7)]
    copy = now.iloc[[200]].assign(path=f"{now['wnid'][200]}/copy.jpg")  # of the same class: no
    now = pd.concat([now, copy], ignore_index=True)
    found = edit(root, "imagenet-train", now)
    assert (found.new, found.removed, found.changed, found.relabelled) == (8, 7, 0, 7)
    text = format_changes(compute_changes(params_of(), root))
    assert "\n  7 images changed class: the same content in another folder\n" in text


def test_new_removed_and_changed_images_are_distinguished(root):
    before = manifest("imagenet-train")
    more = manifest("imagenet-train", ("n99999999",), 2)
    now = pd.concat([before.drop(index=[3, 4, 5]), more], ignore_index=True)
    now.loc[now["path"] == f"{CLASSES[1]}/0.jpg", "sha256"] = "0" * 64
    now.loc[now["path"] == f"{CLASSES[1]}/1.jpg", "wnid"] = CLASSES[
        2
    ]  # a ground truth that was corrected
    found = edit(root, "imagenet-train", now)
    assert (found.images, found.before, found.new, found.removed, found.changed) == (
        299,
        300,
        2,
        3,
        2,
    )
    assert (found.classes_new, found.classes_removed) == (("n99999999",), ())
    assert set(found.evidence) == {
        "n99999999/0.jpg",
        "n99999999/1.jpg",
        *(f"{CLASSES[0]}/{i}.jpg" for i in (3, 4, 5)),
        f"{CLASSES[1]}/0.jpg",
        f"{CLASSES[1]}/1.jpg",
    }
    assert (found.mix[0].wnid, found.mix[0].before, found.mix[0].now) == (CLASSES[0], 30, 27)
    assert {s.wnid: (s.before, s.now) for s in found.mix}["n99999999"] == (0, 2)
    text = format_changes(compute_changes(params_of(), root))
    assert (
        "imagenet-train: 299 images, 300 before: 2 new, 3 removed, 2 changed\n  classes new: n99999999\n"
        in text
    )
    assert "\nA new candidate is trained, or restored from DVC's cache if " in text


@pytest.mark.parametrize("text", ['{"the candidate": ', "[]"])
def test_a_corrupt_plan_of_the_baseline_is_reported(root, text):
    (root / paths.BASELINE_PLAN).write_text(text)
    with pytest.raises(
        DataError,
        match=r"plan\.json: found no JSON object.*; remove data/baseline to count everything as new",
    ):
        compute_changes(params_of(), root)


def test_files_that_cannot_be_used_count_as_files_and_not_as_images(root):
    now = manifest("sketch")
    now.loc[0, ["problem", "sha256"]] = "truncated", "1" * 64
    now.loc[0, ["brightness", "contrast"]] = np.nan
    found = edit(root, "sketch", now)
    assert (found.images, found.before, found.changed) == (299, 300, 1)
    assert all(math.isfinite(value) for value in found.psi.values())


def test_a_set_that_is_gone_or_was_not_there(root):
    empty = manifest("sketch").iloc[:0]
    gone = edit(root, "sketch", empty)
    assert (gone.images, gone.removed, gone.psi, gone.mix, len(gone.classes_removed)) == (
        0,
        300,
        {},
        (),
        10,
    )
    assert "  PSI: no images to compare" in format_changes(compute_changes(params_of(), root))
    remember(params_of(), compute_changes(params_of(), root), root)
    assert edit(root, "sketch", manifest("sketch")).new == 300


def test_darker_images_show_in_brightness_alone(root):
    now = manifest("imagenet-train")
    fresh = manifest("imagenet-train", per_class=60).iloc[:]
    fresh = fresh[~fresh["path"].isin(now["path"])]
    fresh["brightness"] *= 0.3
    found = edit(root, "imagenet-train", pd.concat([now, fresh], ignore_index=True))
    assert found.new == 300
    assert {f for f in found.psi if describe_shift(found, f)} == {"brightness"}
    assert describe_shift(found, "brightness") == "large"
    assert found.psi["class"] == pytest.approx(0, abs=1e-4)
    assert "brightness" in format_changes(compute_changes(params_of(), root))


def test_params_and_code_that_make_another_candidate_are_named(root, monkeypatch):
    assert compute_changes(params_of(), root).params == ()
    other = params_of(train__epochs=3, contrast__dense_dim=64, data__flip=0.25)
    assert compute_changes(other, root).params == (
        "contrast.dense_dim: 128 -> 64",
        "data.flip: 0.5 -> 0.25",
        "train.epochs: 2 -> 3",
    )
    moved = compute_changes(params_of(retraining__mode="global"), root).params
    assert "the candidate.mode: dense -> global" in moved
    assert "contrast.patches_per_image: 50 -> nothing" in moved
    monkeypatch.setattr(
        source_hash,
        "hash_sources",
        lambda parts: "0" if parts is TRAINING_CODE else "1",
    )
    found = compute_changes(params_of(), root)
    assert found.params == ("evaluation code changed", "training code changed")
    assert found.has_changes


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("evaluate__batch_size", 128),
        ("report__confidence", 0.9),
        ("train__checkpoint_minutes", 128),
    ],
)
def test_params_that_change_no_number_of_the_candidate_are_no_change(root, key, value):
    assert not compute_changes(params_of(**{key: value}), root).has_changes


def test_a_change_of_the_evaluation_alone_says_so(root):
    edit(root, "sketch", manifest("sketch").iloc[5:].reset_index(drop=True))
    found = compute_changes(params_of(evaluate__preprocess={"sketch": "as-is"}), root)
    assert found.params == ("evaluate.sketch.preprocess: null -> as-is",)
    assert format_changes(found).endswith(
        "Only the evaluation changed: the same model is the candidate, and it and the champion are judged anew, "
        "unless it is the champion, byte for byte: then only its chance and minimums are checked "
        "on the new images."
    )
    assert "judged anew" not in format_changes(compute_changes(params_of(train__epochs=3), root))


def test_the_baseline_forgets_sets_that_are_no_longer_there(root):
    write_manifest(manifest("other"), root / paths.baseline_file("other"))
    remember(params_of(), compute_changes(params_of(), root), root)
    assert sorted(path.name for path in (root / paths.BASELINE).iterdir()) == sorted(
        [*(f"{name}.parquet" for name in SETS), "plan.json"]
    )


def test_what_changed_while_the_candidate_was_trained_makes_one_of_its_own(root):
    seen = compute_changes(params_of(train__epochs=7), root)
    remember(params_of(train__epochs=8), seen, root)  # params.yaml was edited meanwhile
    assert not compute_changes(params_of(train__epochs=7), root).has_changes
    assert compute_changes(params_of(train__epochs=8), root).params == ("train.epochs: 7 -> 8",)


def test_a_baseline_that_was_left_half_written_is_a_change(root):
    (root / paths.BASELINE_PLAN).unlink()
    assert compute_changes(params_of(), root).params == (
        "params and code: nothing to compare with",
    )


def test_a_baseline_that_cannot_be_read_says_what_to_do(root):
    (root / paths.baseline_file("sketch")).write_bytes(b"damaged")
    with pytest.raises(
        DataError, match=r"sketch\.parquet: .*; remove data/baseline to count everything as new"
    ):
        compute_changes(params_of(), root)
    (root / paths.manifest_file("imagenet")).unlink()
    with pytest.raises(DataError, match="run the stage prepare"):
        compute_changes(params_of(), root)


def test_names_are_printed_without_their_control_characters(root):
    now = manifest("sketch")
    now.loc[0, "path"] = f"{CLASSES[0]}/\x1b[31mred\n.jpg"
    edit(root, "sketch", now)
    assert "\x1b" not in format_changes(compute_changes(params_of(), root))


def test_no_heavy_import():
    code = "import sys, pipelines.gate.drift; from steps.unit_plans import resolve_plans; print({'torch', 'zenml', 'dvc', 'mlflow'} & {*sys.modules})"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "set()\n"
    )


def slow_psi(before: list[float], now: list[float]) -> float:
    """One bin after the other, from the definition."""
    if len(set(before)) <= 10:
        bins = [(lambda v, w=value: v == w) for value in sorted({*before, *now})]
    else:
        tenths = [sorted(before)[k * len(before) // 10] for k in range(1, 10)]
        edges = sorted({*tenths, *(np.nextafter(t, np.inf) for t in tenths if tenths.count(t) > 1)})
        ends = [-np.inf, *edges, np.inf]
        bins = [(lambda v, a=a, b=b: a <= v < b) for a, b in pairwise(ends)]
    total = 0.0
    for inside in bins:
        p, q = (
            (sum(map(inside, values)) + 0.5) / (len(values) + 0.5 * len(bins))
            for values in (before, now)
        )
        total += (q - p) * math.log(q / p)
    return total


def test_a_profile_stands_for_its_manifests(root):
    """The same classes and indices as from the rows themselves, also through a file."""
    text = build_profile(params_of(), root).model_dump_json()
    now = manifest("imagenet-train", (*CLASSES[1:], "n99999999"), 25)
    now["brightness"] *= 0.8
    now.loc[:40, "width"] = 999
    found = edit(root, "imagenet-train", now)
    profile = DataProfile.model_validate_json(text)
    reference = ReferenceProfile("champion's data", "7", profile)
    drifts = measure_reference_drift(params_of(), [reference], root)
    (drift,) = (each for each in drifts if each.dataset == "imagenet-train")
    for key in ("images", "before", "classes_new", "classes_removed", "psi", "chance"):
        assert getattr(drift, key) == getattr(found, key)
    assert drift.classes_new == ("n99999999",)
    assert drift.psi["width"] > 0.25


def count_both(before: pd.Series, now: pd.Series) -> BinCounts:
    return count_bins(build_histogram(before), now)


VALUES = st.lists(st.integers(0, 30).map(float) | st.floats(0, 1), min_size=1, max_size=60)


@settings(max_examples=100, deadline=None)
@given(before=VALUES, now=VALUES)
def test_psi_is_re_derived(before, now):
    counts = count_both(pd.Series(before), pd.Series(now))
    assert [each.sum() for each in counts] == [len(before), len(now)]
    assert compute_psi(counts) == pytest.approx(slow_psi(before, now), abs=1e-9)
    assert compute_psi(count_both(pd.Series(before), pd.Series(before))) == 0
    assert compute_psi(counts) >= 0


def test_psi_by_hand():
    half, moved = pd.Series(["a"] * 50 + ["b"] * 50), pd.Series(["a"] * 80 + ["b"] * 20)
    p, q = (50 + SMOOTHING) / 101, (80 + SMOOTHING) / 101
    expected = (q - p) * math.log(q / p) + (p - q) * math.log((1 - q) / (1 - p))
    assert compute_psi(count_both(half, moved)) == pytest.approx(expected)
    assert compute_psi(count_both(moved, half)) == pytest.approx(expected)
    # Normal shifted by one standard deviation: Jeffreys' divergence is 1, ten bins keep most of it.
    rng = np.random.default_rng(0)
    found = compute_psi(
        count_both(pd.Series(rng.normal(size=50_000)), pd.Series(rng.normal(1, 1, 50_000)))
    )
    assert 0.85 < found < 1.0
    # A value that nearly all images share does not hide what is above it.
    mostly = pd.Series([64.0] * 95 + list(range(65, 85)))
    assert compute_psi(count_both(mostly, pd.Series([128.0] * 100))) > 1


def test_chance_is_what_two_samples_of_one_population_give():
    rng = np.random.default_rng(0)
    above = 0
    for _ in range(400):
        counts = count_both(pd.Series(rng.normal(size=500)), pd.Series(rng.normal(size=300)))
        above += compute_psi(counts) > compute_chance_psi(counts)
    assert 0.02 < above / 400 < 0.09
    many = count_both(
        pd.Series(rng.choice(list("abcdefghij"), 40)), pd.Series(rng.choice(list("abcdefghij"), 40))
    )
    assert compute_chance_psi(many) > 0.25
    assert compute_chance_psi(count_both(pd.Series([1.0]), pd.Series([1.0]))) == 0.0
    assert (
        describe_shift(
            DatasetDrift(
                dataset="s",
                images=40,
                before=40,
                new=1,
                removed=1,
                changed=0,
                classes_new=(),
                classes_removed=(),
                psi={"class": 0.3},
                chance={"class": compute_chance_psi(many)},
                evidence=(),
            ),
            "class",
        )
        == ""
    )
