"""The examples run as written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_own_training_loop_runs_and_learns_its_batches():
    result = subprocess.run(
        [sys.executable, "-W", "error", "examples/own_training_loop.py"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    loss, chance = (float(number) for number in re.findall(r"\d+\.\d+", result.stdout))
    assert loss < 0.7 * chance
