"""Run the benchmarks and write docs/performance.md: `make bench` (a quiet machine; some minutes)."""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path

import cv2
import PIL
import timm
import torch
import torchvision

from benchmarks import infonce, loader, scan, steps
from densecl.hardware import device, device_name

PAGE = Path("docs/performance.md")
HEAD = """# Performance

Written by `make bench`. Every ratio comes from one run, in which both sides were called in turn: median (minimum to
maximum). Memory is what a process of its own grew by. What is not in the table was not measured here.

{machine}

| id | measure | ours | peer | ratio | target |
|---|---|---|---|---|---|
"""


def main() -> None:
    versions = {"torch": torch, "torchvision": torchvision, "timm": timm, "Pillow": PIL, "OpenCV": cv2}
    names = ", ".join(f"{name} {module.__version__}" for name, module in versions.items())
    machine = f"Machine: {device_name(device())}; Python {platform.python_version()}, {names}."
    with tempfile.TemporaryDirectory() as place:
        rows = [*infonce.rows(), *steps.rows(), *loader.rows(Path(place)), *scan.rows(Path(place))]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    print("\n".join(lines))
    PAGE.write_text(HEAD.format(machine=machine) + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
