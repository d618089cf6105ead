"""Run the benchmarks and write docs/performance.md: `make bench`.

Needs a quiet machine. `python -m benchmarks NAME ...` prints
the rows of some parts and writes nothing.
"""

import argparse
import os
import platform
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from benchmarks.engine import measure_engine
from benchmarks.evaluation import measure_suite_evaluation
from benchmarks.loop import measure_loop
from benchmarks.losses import measure_dense_loss, measure_info_nce
from benchmarks.measure import TABLE_HEADER, BenchmarkRow, format_rows
from benchmarks.neighbours import measure_neighbours
from benchmarks.photographs import measure_evaluation, measure_loader
from benchmarks.pipeline import measure_pipeline
from benchmarks.processes import measure_processes
from benchmarks.scan import measure_scan
from benchmarks.shards import measure_shards
from benchmarks.steps import StepSetup, measure_steps
from benchmarks.tracking import measure_tracking
from densecl.runtime.hardware import get_device, get_device_name
from densecl.runtime.threads import WAIT_POLICIES

PAGE = Path("docs/performance.md")
MARK = "<!-- below: written by `make bench` -->\n"
SECTIONS: dict[str, Callable[[Path], list[BenchmarkRow]]] = {  # each gets an empty folder
    "infonce": lambda _: measure_info_nce(),
    "lightly": lambda _: measure_dense_loss(),
    "steps": lambda _: measure_steps(StepSetup()),
    "loop": measure_loop,
    "neighbours": lambda _: measure_neighbours(),
    "tracking": measure_tracking,
    "processes": lambda _: measure_processes(),
    "loader": measure_loader,
    "evaluation": measure_evaluation,
    "suite": measure_suite_evaluation,
    "scan": measure_scan,
    "shards": measure_shards,
    "pipeline": measure_pipeline,
    "engine": measure_engine,
}


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"parts to run: {', '.join(SECTIONS)}"
    )
    chosen = parser.parse_args().names
    if unknown := [name for name in chosen if name not in SECTIONS]:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    packages = {
        "torch": "torch",
        "torchvision": "torchvision",
        "timm": "timm",
        "Pillow": "pillow",
        "OpenCV": "opencv-python-headless",
    }
    versions = ", ".join(f"{name} {version(package)}" for name, package in packages.items())
    names = [name for name in ("OMP_NUM_THREADS", *WAIT_POLICIES) if name in os.environ]
    openmp = ", ".join(f"{name} {os.environ[name]}" for name in names) or "OpenMP's defaults"
    machine = (
        f"Machine: {get_device_name(get_device())} ({openmp}); Python {platform.python_version()}, "
        f"{versions}."
    )
    lines = []
    for name in chosen or SECTIONS:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(format_rows(SECTIONS[name](Path(folder))))
        print(lines[-1], flush=True)
    if not chosen:
        introduction = PAGE.read_text(encoding="utf-8").split(MARK)[0]
        table = TABLE_HEADER + "\n".join(lines)
        PAGE.write_text(f"{introduction}{MARK}\n{machine}\n\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
