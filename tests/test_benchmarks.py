"""The GPU script runs at small sizes without a GPU, and its imports need few packages."""

import subprocess
import sys

import pytest

from benchmarks import gpu, losses, measure, steps

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
def test_gpu_rows_of_small_sizes(monkeypatch):
    for module in (losses, steps):  # no process of its own, so memory is not measured
        monkeypatch.setattr(
            module, "measure_peak_memory", lambda build, *args: (build(*args)(), 1.0)[1]
        )
    rows = gpu.measure_gpu(small=True)
    assert {row.id for row in rows} == {"P1", "P2", "P3", "P4", "P5", "P6", "P7", "MFU", "AUG"}
    exact = next(row for row in rows if row.id == "P3")
    assert float(exact.ours) <= 1e-6


def test_gpu_script_imports_no_heavy_package():
    code = f"import sys\nfor name in {HEAVY}: sys.modules[name] = None\nimport benchmarks.gpu"
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


def test_added_memory_is_what_a_call_touches():
    grown = measure.measure_peak_memory(allocate_32_mebibytes)
    assert 31 <= grown < 48


def allocate_32_mebibytes():
    return lambda: bytearray(32 * 2**20)
