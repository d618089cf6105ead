"""Run the benchmarks and write docs/performance.md: `make bench` (a quiet machine; a quarter of an
hour on two cores).
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
from benchmarks.measure import Row
from densecl.runtime.hardware import device, device_name

PAGE = Path("docs/performance.md")
MARK = "<!-- below: written by `make bench` -->\n"
HEAD = """
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
    names = ", ".join(f"{name} {module.__version__}" for name, module in versions.items())
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    machine = (
        f"Machine: {device_name(device())} (OMP_NUM_THREADS "
        f"{threads}); Python {platform.python_version()}, {names}."
    )
    lines = []
    with tempfile.TemporaryDirectory() as place:
        parts: dict[str, Callable[[], list[Row]]] = {
            "infonce": infonce.rows,
            "lightly": lightly_loss.rows,
            "steps": steps.rows,
            "tracking": tracking.rows,
            "processes": processes.rows,
            "loader": lambda: loader.rows(Path(place)),
            "evaluation": lambda: evaluation.rows(Path(place)),
            "scan": lambda: scan.rows(Path(place)),
            "pipeline": lambda: pipeline.rows(Path(place)),
        }
        for name in sys.argv[1:] or parts:
            for row in parts[name]():
                lines.append("| " + " | ".join(row) + " |")
                print(lines[-1], flush=True)
    if not sys.argv[1:]:  # a part alone is shown, not kept
        kept = PAGE.read_text(encoding="utf-8").split(MARK)[0]
        PAGE.write_text(
            kept + MARK + HEAD.format(machine=machine) + "\n".join(lines) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
