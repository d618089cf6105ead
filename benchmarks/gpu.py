"""All rows of a GPU, and how much of the device mode none uses: `python -m benchmarks.gpu`.

Needs torch, timm, torchvision, pandas, pyarrow, pydantic, a YAML reader and safetensors, and no
images. `--small` runs the same code at sizes that mean nothing, to test it without a GPU.
"""

import argparse
import platform
from functools import partial
from importlib.metadata import version
from statistics import median

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.losses import measure_info_nce
from benchmarks.measure import BenchmarkRow, Call, format_rows, make_time_row, measure_alternating
from benchmarks.steps import CLASSES, StepSetup, build_batch, build_step, measure_steps
from densecl.config.params import DataParams, TrainParams
from densecl.datasets.views.batch import UncoloredBatch
from densecl.datasets.views.color_change import draw_color_change
from densecl.datasets.views.device_transforms import finish_batch
from densecl.network.vit import build_model, forward_tokens
from densecl.runtime.hardware import get_device, get_device_name

BF16 = TrainParams(batch_size=256, precision="bf16")
SETUPS = [
    StepSetup(f"vit_{size}_patch16_224", batch=batch, train=BF16, targets=targets)
    for size, batch, targets in (
        ("tiny", 256, ("≤ 1.15", "≤ 1.10", "≤ 1.02", "≤ 1.02")),
        ("small", 256, ("≤ 1.08", "≤ 1.07", "≤ 1.02", "≤ 1.02")),
        ("base", 128, ("≤ 1.04", "≤ 1.05", "≤ 1.02", "≤ 1.02")),
    )
]
SMALL_MODEL = {"img_size": 32, "embed_dim": 48, "depth": 2}
SMALL = [
    StepSetup("vit_tiny_patch16_224", SMALL_MODEL, 4, 256, TrainParams(batch_size=4), rounds=1)
]
MATRIX_SIZE = {"cuda": 8192, "cpu": 512}  # of the square matrices that give the device's rate


def measure_matrix_rate(rounds: int) -> float:
    """Flop per second of a large matrix product: in bf16 on a GPU, in fp32 on the CPU."""
    device, size = get_device(), MATRIX_SIZE[get_device().type]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = measure_alternating({"product": partial(torch.matmul, left, right)}, rounds)
    return 2 * size**3 / median(times["product"])


def measure_utilisation(setup: StepSetup, rate: float) -> BenchmarkRow:
    """Model flop per second of a `none` step (3 times a forward pass of both views), as a share of
    the device's rate.
    """
    model = build_model(setup.network, CLASSES, 0).to(get_device())
    size = (setup.batch * 2, 3, *model.patch_embed.img_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward_tokens(model, torch.zeros(size, device=get_device()))
    times = measure_alternating({"none": build_step(setup, "none")}, setup.rounds)
    reached = 3 * counter.get_total_flops() / median(times["none"])
    return BenchmarkRow(
        "MFU",
        f"model-flop utilisation of none, {setup.model}, batch {setup.batch}",
        f"{reached / 1e12:.2f} Tflop/s",
        f"{rate / 1e12:.2f} Tflop/s",
        f"{reached / rate:.3f}",
        "-",
    )


def measure_color_changes(setup: StepSetup) -> BenchmarkRow:
    """What `data.augment_on: device` adds to a step: jitter and blur of both views of a batch."""
    batch, data, rng = build_batch(setup), DataParams(), np.random.default_rng(0)
    size = (batch.view1.shape[2], batch.view1.shape[3])
    changes1, changes2 = (
        torch.tensor(
            [draw_color_change(view, data, size, rng).to_row() for _ in range(setup.batch)],
            dtype=torch.float64,
        )
        for view in (data.view1, data.view2)
    )
    loaded = UncoloredBatch(batch, changes1, changes2)
    calls: dict[str, Call] = {
        "changes": partial(finish_batch, loaded, get_device()),
        "none": build_step(setup, "none"),
    }
    times = measure_alternating(calls, setup.rounds)
    measure = f"colour changes of two views / a step of none, {setup.model}, batch {setup.batch}"
    return make_time_row("AUG", measure, times, "changes", "none", "≤ 0.10")


def measure_device_waits(setup: StepSetup) -> BenchmarkRow:
    """A dense step in which every wait for the device is an error."""
    run_step, outcome = build_step(setup, "dense"), "0"
    run_step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run_step()
    except RuntimeError as error:
        outcome = str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return BenchmarkRow("P4", "waits for the device in a dense step", outcome, "-", "-", "0")


def measure_gpu(small: bool) -> list[BenchmarkRow]:
    """Rows of the losses and of each setup; `small`: at the small sizes."""
    setups, rounds = (SMALL, 1) if small else (SETUPS, 9)
    rows = measure_info_nce((16, 32), 256, 1) if small else measure_info_nce(rounds=rounds)
    rate = measure_matrix_rate(rounds)
    for setup in setups:
        rows += [*measure_steps(setup), measure_utilisation(setup, rate)]
        rows.append(measure_color_changes(setup))
        if torch.cuda.is_available():
            rows.append(measure_device_waits(setup))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--small", action="store_true", help="tiny sizes, to try the script without a GPU"
    )
    small = parser.parse_args().small
    if not small and not torch.cuda.is_available():
        raise SystemExit("no GPU found; expected one (--small tries the script on the CPU)")
    versions = f"torch {torch.__version__}, timm {version('timm')}"
    print(f"{get_device_name(get_device())}; Python {platform.python_version()}, {versions}")
    print(format_rows(measure_gpu(small)))


if __name__ == "__main__":
    main()
