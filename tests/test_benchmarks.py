"""The GPU script runs at small sizes without a GPU, and its imports need few packages."""

import itertools
import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks import evaluation, losses, measure, memory, scale, steps
from benchmarks.gpu import __main__ as gpu, budget
from benchmarks.gpu.page import BEGIN, END, write_page
from densecl import paths
from densecl.datasets.storage.manifest import read_manifest
from densecl.datasets.views.two_views import draw_epoch_order
from densecl.errors import DenseclError
from steps import plan

ROOT = Path(__file__).parents[1]

HEAVY = (
    "cv2",
    "dvc",
    "great_expectations",
    "jinja2",
    "matplotlib",
    "mlflow",
    "rich",
    "scipy",
    "sklearn",
    "statsmodels",
    "torchmetrics",
    "zenml",
)


@pytest.mark.slow
def test_every_part_of_the_gpu_script_runs_in_small(monkeypatch, tmp_path, capsys):
    for module in (losses, steps):  # no process of its own, so memory is not measured
        monkeypatch.setattr(
            module, "measure_peak_memory", lambda build, *args: (build(*args)(), 1.0)[1]
        )
    monkeypatch.setenv("DENSECL_WORKERS", "0")
    page, numbers = tmp_path / "page.md", tmp_path / "gpu.json"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert gpu.main(["--small", "--page", str(page), "--json", str(numbers)]) == 0
    parts = {part["name"]: part for part in json.loads(numbers.read_text())["parts"]}
    assert set(parts) == set(gpu.SECONDS)
    assert not any(part["cut"] or part["failed"] for part in parts.values())
    rows = [row for part in parts.values() for row in part["rows"]]
    assert {row["id"] for row in rows} == {
        *(
            "P1",
            "P2",
            "P3",
            "P4",
            "P5",
            "P6",
            "P7",
            "MFU",
            "AUG",
            "EXACT",
            "BITS",
            "COST",
            "PRED",
            "LOAD",
            "DDP",
        )
    }
    assert float(next(row for row in rows if row["id"] == "P3")["ours"]) <= 1e-6
    exact = [row for row in rows if row["id"] == "EXACT"]
    assert {row["ratio"] for row in exact if "bf16" not in row["measure"]} == {"met"}
    assert {row["ours"] for row in rows if row["id"] == "BITS"} == {"0"}
    compiled = [row for row in rows if "compiled" in row["measure"]]
    assert {row["id"] for row in compiled} >= {"P4", "P6", "P5", "MFU", "EXACT", "BITS"}
    before, table, after = re.split(f"{BEGIN}|{END}", page.read_text())
    assert (before, after) == ("before\n", "\nafter\n")
    assert table.count("\n| ") == len(rows) + 1
    assert capsys.readouterr().out.count("\n| ") == len(rows)


ROW = measure.BenchmarkRow("P1", "x", "1", "2", "0.5", "-")


def fail():
    raise ValueError("no such\nkernel")


def need_package():
    raise ModuleNotFoundError("no", name="cv2")


@pytest.mark.slow
def test_a_part_past_its_budget_is_cut_by_name_and_the_next_one_uses_what_is_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])

    def take(seconds):
        now[0] += seconds
        return [ROW]

    tasks = [budget.Task(name, partial(take, 30)) for name in ("one", "two", "three")]
    slow, quick = budget.Part("slow", 40, tasks), budget.Part("quick", 60, tasks)
    first, second = budget.run_parts([slow, quick])
    assert (len(first.rows), first.seconds) == (2, 60)
    assert first.cut == [
        "slow, three: not measured: the budget of 40 s was used up after 60 s; run "
        "`python -m benchmarks.gpu --only slow`"
    ]
    assert (len(second.rows), second.seconds) == (2, 60)  # 40 of 60 s were left
    assert now == [100 + 120]


@pytest.mark.slow
def test_a_task_that_hangs_is_stopped_and_one_that_fails_costs_no_other():
    tasks = [budget.Task("fails", fail), budget.Task("package", need_package)]
    (result,) = budget.run_parts([budget.Part("part", 60, tasks)])
    assert result.failed == ["part, fails: failed: ValueError: no such kernel"]
    assert result.cut == ["part, package: not measured: needs the package cv2"]
    hanging = budget.Part("part", 1, [budget.Task("hangs", partial(time.sleep, 60))])
    result = budget.run_part(hanging, time.monotonic() + 0.2, 0.1)
    assert result.cut == ["part, hangs: stopped after 0 s, 0 s past the budget of its part"]
    assert result.seconds < 20


def test_the_page_without_its_markers_is_refused_and_the_real_one_has_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"{END}{BEGIN}")
    with pytest.raises(DenseclError, match=r"page.md: expected the lines .* in this order"):
        write_page(page, [])
    page.write_text((ROOT / "docs/performance.md").read_text(encoding="utf-8"))
    write_page(page, [])


def test_the_parts_end_within_eight_minutes():
    assert sum(gpu.SECONDS.values()) + budget.GRACE <= 8 * 60 - 20  # 20 s of imports


@pytest.mark.slow
def test_gpu_script_imports_no_heavy_package():
    code = (
        f"import sys\nfor name in {HEAVY}: sys.modules[name] = None\nimport benchmarks.gpu.__main__"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_ratio_is_taken_per_round_and_the_first_round_is_left_out():
    assert measure.format_ratio([1.0, 2.0, 9.0], [2.0, 2.0, 3.0]) == "1.000 (0.500 to 3.000)"
    calls = []
    times = measure.measure_alternating(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2
    )
    assert calls == ["a", "b"] * 3
    assert [len(seen) for seen in times.values()] == [2, 2]


@pytest.mark.slow
def test_added_memory_is_what_a_call_touches():
    grown = measure.measure_peak_memory(allocate_32_mebibytes)
    assert 31 <= grown < 48


def allocate_32_mebibytes():
    return lambda: bytearray(32 * 2**20)


def test_a_generated_manifest_is_one_that_a_training_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    memory.write_generated_manifest(5000, 7, memory.PATH)
    frame = read_manifest(memory.PATH)
    assert frame["image_id"].is_unique
    assert frame["path"].is_monotonic_increasing
    assert frame["wnid"].nunique() == 7
    assert (frame["path"].str.split("/").str[0] == frame["wnid"]).all()
    assert memory.build_views().image_ids.prefix == "imagenet-train/"
    views, loader, first = memory.draw_order()
    rows = np.array([row for _, row in loader.sampler])
    steps = 5000 // memory.BATCH
    assert len(rows) == (steps - steps // 2) * memory.BATCH // 8  # the own slice of what is left
    assert first == (0, rows[0])
    order = draw_epoch_order(5000, 0, views.seed)[steps // 2 * memory.BATCH :]
    assert rows[: memory.BATCH // 8].tolist() == order[: memory.BATCH // 8].tolist()
    memory.write_shards(5000)
    packed = memory.build_shard_views()
    memory.touch_rows(packed)
    for row in (0, 1250, 1251, 4999):
        assert packed.image_ids[row] == views.image_ids[row]
        assert str(packed.files[row]).endswith(f"train-{row // 1251:08d}.tar/{row:08d}.jpg")
    assert memory.draw_shard_order()[2] == first


def test_copies_of_a_run_name_their_own_seed_and_files(tmp_path):
    run = tmp_path / "run"
    for mode in scale.MODES:
        for folder in (paths.PREDICTIONS, paths.EVALUATION, paths.TRAINING):
            (run / folder / f"{mode}-0").mkdir(parents=True)
        control = str(paths.control_predictions_file("sketch", mode, 0))
        record = {"seed": 0, "control": {"predictions": control}}
        (run / paths.evaluation_file("sketch", mode, 0)).write_text(json.dumps(record))
        (run / control).write_bytes(mode.encode())
        (run / paths.model_folder(mode, 0)).mkdir(parents=True)
        (run / paths.model_folder(mode, 0) / "config.json").write_text("{}")
    for path, text in ((paths.plan_file("report"), '{"seeds": [0]}'), (paths.PARAMS, "seeds: [0]")):
        (run / path).parent.mkdir(parents=True, exist_ok=True)
        (run / path).write_text(text)
    (run / paths.MANIFESTS).mkdir()
    for path in (paths.COST, Path("mlflow.db")):
        (run / path).touch()
    scale.copy_run(run, tmp_path / "copy", 6)
    for mode, seed in itertools.product(scale.MODES, (0, 1)):
        file = tmp_path / "copy" / paths.evaluation_file("sketch", mode, seed)
        record = json.loads(file.read_text())
        assert record["seed"] == seed
        control = Path(record["control"]["predictions"])
        assert control == paths.control_predictions_file("sketch", mode, seed)
        assert (tmp_path / "copy" / control).read_bytes() == mode.encode()
    plan = json.loads((tmp_path / "copy" / paths.plan_file("report")).read_text())
    assert plan["seeds"] == [0, 1]


@pytest.mark.skipif("DENSECL_SUITE" not in os.environ, reason="DENSECL_SUITE: no folder of images")
def test_the_params_of_this_project_become_those_of_the_suite(tmp_path, monkeypatch):
    """Whatever sets, probes and drawn images params.yaml names: `plan` finds all it needs."""
    suite = Path(os.environ["DENSECL_SUITE"])
    roots = {name: suite / below for name, below in evaluation.FOLDERS.items()}
    values = evaluation.build_params((ROOT / paths.PARAMS).read_text(encoding="utf-8"), roots)
    monkeypatch.chdir(tmp_path)
    paths.PARAMS.write_text(yaml.safe_dump(values), encoding="utf-8")
    plan.main()
    assert {file.stem for file in paths.PLANS.glob("imagenet*.json")} >= {"imagenet-train"}
    assert json.loads(paths.plan_file("report").read_text())["datasets"] == list(roots)[1:]
