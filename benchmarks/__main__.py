"""Run the benchmarks and write docs/performance.md: `make bench`.

Needs a quiet machine, and a quarter of an hour on two cores.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import PIL
import timm
import torch
import torchvision

from benchmarks import (
    evaluation,
    infonce,
    lightly_loss,
    loader,
    pipeline,
    processes,
    scan,
    steps,
    tracking,
)
from benchmarks.measure import BenchmarkRow
from densecl.runtime.hardware import get_device, get_device_name

PAGE = Path("docs/performance.md")
MARK = "<!-- below: written by `make bench` -->\n"
PAGE_HEADER = """
{machine}

| id | measure | ours | peer | ratio | target |
|---|---|---|---|---|---|
"""


def main() -> None:
    versions = {
        "torch": torch,
        "torchvision": torchvision,
        "timm": timm,
        "Pillow": PIL,
        "OpenCV": cv2,
    }
    version_list = ", ".join(f"{name} {module.__version__}" for name, module in versions.items())
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    machine = (
        f"Machine: {get_device_name(get_device())} (OMP_NUM_THREADS "
        f"{threads}); Python {platform.python_version()}, {version_list}."
    )
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        sections: dict[str, Callable[[], list[BenchmarkRow]]] = {
            "infonce": infonce.measure_rows,
            "lightly": lightly_loss.measure_rows,
            "steps": steps.measure_rows,
            "tracking": tracking.measure_rows,
            "processes": processes.measure_rows,
            "loader": lambda: loader.measure_rows(Path(folder)),
            "evaluation": lambda: evaluation.measure_rows(Path(folder)),
            "scan": lambda: scan.measure_rows(Path(folder)),
            "pipeline": lambda: pipeline.measure_rows(Path(folder)),
        }
        for name in sys.argv[1:] or sections:
            for row in sections[name]():
                lines.append("| " + " | ".join(row) + " |")
                print(lines[-1], flush=True)
    if not sys.argv[1:]:  # a part alone is shown, not kept
        introduction = PAGE.read_text(encoding="utf-8").split(MARK)[0]
        PAGE.write_text(
            introduction + MARK + PAGE_HEADER.format(machine=machine) + "\n".join(lines) + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
