"""Steps of the modes, eager and compiled: ratios, memory, and how much of the device they use."""

import os
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import BenchmarkRow, Call, make_time_row, measure_alternating
from benchmarks.steps import CLASSES, MODES, StepSetup, build_batch, build_step, measure_steps
from densecl.config.params import DataParams
from densecl.datasets.views.batch import UncoloredBatch
from densecl.datasets.views.color_change import draw_color_change
from densecl.datasets.views.device_transforms import finish_batch
from densecl.network.vit import build_model, forward_tokens
from densecl.runtime.hardware import get_device

MATRIX_SIZE = {"cuda": 8192, "cpu": 512}  # of the square matrices that give the device's rate
NO_COMPILING = {"TORCH_COMPILE_DISABLE": "1"}  # read when torch is imported


def measure_setup(setup: StepSetup) -> list[BenchmarkRow]:
    """All rows of one model, at the precision of its params."""
    with skip_compiling_on_cpu():
        rows = [*measure_steps(setup), measure_utilisation(setup)]
    if setup.train.compile:
        return rows
    return [*rows, measure_color_changes(setup)]


@contextmanager
def skip_compiling_on_cpu() -> Iterator[None]:
    """The small run on a CPU walks through `torch.compile` without a C++ compiler, also in the
    processes that it starts.
    """
    if torch.cuda.is_available():
        yield
        return
    with torch.compiler.set_stance("force_eager"), patch.dict(os.environ, NO_COMPILING):
        yield


def measure_matrix_rate(rounds: int) -> float:
    """Flop per second of a large matrix product: in bf16 on a GPU, in fp32 on the CPU."""
    device, size = get_device(), MATRIX_SIZE[get_device().type]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = measure_alternating({"product": partial(torch.matmul, left, right)}, rounds)
    return 2 * size**3 / median(times["product"])


def measure_utilisation(setup: StepSetup) -> BenchmarkRow:
    """Model flop per second of a `none` step (3 times a forward pass of both views), as a share of
    the rate of one large matrix product, which a GPU sustains; its data sheet promises more.
    """
    rate = measure_matrix_rate(setup.rounds)
    model = build_model(setup.network, CLASSES, 0).to(get_device())
    size = (setup.batch * 2, 3, *model.patch_embed.img_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward_tokens(model, torch.zeros(size, device=get_device()))
    times = measure_alternating({"none": build_step(setup, "none")}, setup.rounds)
    flops = 3 * counter.get_total_flops()
    reached = flops / median(times["none"])
    return BenchmarkRow(
        "MFU",
        f"model-flop utilisation of none / a large matrix product, {setup.setting}",
        f"{reached / 1e12:.2f} Tflop/s",
        f"{rate / 1e12:.2f} Tflop/s",
        f"{reached / rate:.3f}",
        "-",
        {"flops": [float(flops)], "matrix rate": [rate], **times},
    )


def measure_color_changes(setup: StepSetup) -> BenchmarkRow:
    """What `data.augment_on: device` adds to a step: jitter and blur of both views of a batch."""
    loaded = build_uncolored_batch(setup)
    calls: dict[str, Call] = {
        "changes": partial(finish_batch, loaded, get_device()),
        "none": build_step(setup, "none"),
    }
    times = measure_alternating(calls, setup.rounds)
    measure = f"colour changes of two views / a step of none, {setup.setting}"
    return make_time_row("AUG", measure, times, "changes", "none", "≤ 0.10")


def build_uncolored_batch(setup: StepSetup) -> UncoloredBatch:
    """A batch as the loader delivers it with `augment_on: device`."""
    batch, data, rng = build_batch(setup), DataParams(), np.random.default_rng(0)
    size = (batch.view1.shape[2], batch.view1.shape[3])
    changes1, changes2 = (
        torch.tensor(
            [draw_color_change(view, data, size, rng).to_row() for _ in range(setup.batch)],
            dtype=torch.float64,
        )
        for view in (data.view1, data.view2)
    )
    return UncoloredBatch(batch, changes1, changes2)


def measure_device_waits(setup: StepSetup) -> list[BenchmarkRow]:
    """How often an ordinary and a diagnostic step of each mode wait for the device, and where."""
    rows = []
    for mode in MODES:
        for kind, diagnostics in (("a", False), ("a diagnostic", True)):
            run_step = build_step(setup, mode, diagnostics)
            run_step()  # compiles, and makes the optimizer's state
            places = find_device_waits(run_step)
            outcome = str(len(places)) + f" ({', '.join(sorted(set(places)))})" * bool(places)
            measure = f"waits for the device in {kind} step of {mode}, {setup.setting}"
            rows.append(BenchmarkRow("P4", measure, outcome, "-", "-", "0"))
    return rows


def find_device_waits(call: Call) -> list[str]:
    """File and line of each wait for the device in a call, as torch's debug mode finds them."""
    places = []

    def note_place(*_: object) -> None:
        frames = [f for f in traceback.extract_stack() if f"{os.sep}densecl{os.sep}" in f.filename]
        places.append(
            f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "torch"
        )

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with patch("warnings.showwarning", note_place):
            torch.cuda.set_sync_debug_mode("warn")  # warns about itself
            places.clear()
            call()
            torch.cuda.set_sync_debug_mode("default")
    return places
