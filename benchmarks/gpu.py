"""All rows of a GPU, and how much of the device mode none uses: `python -m benchmarks.gpu`.

Needs torch, timm, torchvision, pandas, pyarrow, pydantic, a YAML reader and safetensors, and no
images. `--small` runs the same code at sizes that mean nothing, to test it without a GPU.
"""

from __future__ import annotations

import argparse
import platform
import time
from functools import partial
from statistics import median

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import infonce, steps
from benchmarks.measure import BenchmarkRow, format_seconds, measure_alternating
from benchmarks.steps import StepSetup
from densecl.config.params import TrainParams
from densecl.network.vit import build_model, forward_tokens
from densecl.runtime.hardware import get_device, get_device_name

BF16 = TrainParams(batch_size=256, precision="bf16")
SETUPS = [
    StepSetup(
        "vit_tiny_patch16_224",
        batch=256,
        train=BF16,
        targets=("≤ 1.15", "≤ 1.10", "≤ 1.02", "≤ 1.02"),
    ),
    StepSetup(
        "vit_small_patch16_224",
        batch=256,
        train=BF16,
        targets=("≤ 1.08", "≤ 1.07", "≤ 1.02", "≤ 1.02"),
    ),
    StepSetup(
        "vit_base_patch16_224",
        batch=128,
        train=BF16,
        targets=("≤ 1.04", "≤ 1.05", "≤ 1.02", "≤ 1.02"),
    ),
]
SMALL = [
    StepSetup(
        "vit_tiny_patch16_224",
        {"img_size": 32, "embed_dim": 48, "depth": 2},
        4,
        256,
        TrainParams(batch_size=4),
        rounds=1,
    )
]
MATRIX_SIZE = {
    "cuda": 8192,
    "cpu": 512,
}  # of the square matrices whose product gives the device's rate


def measure_matrix_rate(rounds: int) -> float:
    """Flop a second of a large matrix product: in bf16 on a GPU, in fp32 on the CPU."""
    target, size = get_device(), MATRIX_SIZE[get_device().type]
    dtype = torch.bfloat16 if target.type == "cuda" else torch.float32
    left, right = (torch.randn(size, size, device=target, dtype=dtype) for _ in range(2))
    return (
        2
        * size**3
        / median(
            measure_alternating({"product": partial(torch.matmul, left, right)}, rounds)["product"]
        )
    )


def measure_utilisation(setup: StepSetup, rate: float) -> BenchmarkRow:
    """Model flop of a `none` step (3 times a forward pass of both views) a second, as a share of
    the device's rate.
    """
    model, seconds = build_model(setup.network, steps.CLASSES, 0).to(get_device()), []
    size = (setup.batch * 2, 3, *model.patch_embed.img_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward_tokens(model, torch.zeros(size, device=get_device()))
    seconds = measure_alternating({"none": steps.build_step(setup, "none")}, setup.rounds)["none"]
    reached = 3 * counter.get_total_flops() / median(seconds)
    return BenchmarkRow(
        "MFU",
        f"model-flop utilisation of none, {setup.model}, batch {setup.batch}",
        f"{reached / 1e12:.2f} Tflop/s",
        f"{rate / 1e12:.2f} Tflop/s",
        f"{reached / rate:.3f}",
        "-",
    )


def measure_device_waits(setup: StepSetup) -> BenchmarkRow:
    """A dense step with every wait for the device made an error."""
    run_step = steps.build_step(setup, "dense")
    run_step()
    torch.cuda.set_sync_debug_mode("error")
    start = time.perf_counter()
    try:
        run_step()
        outcome = "0"
    except RuntimeError as error:
        outcome = str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return BenchmarkRow(
        "P4",
        "waits for the device in a dense step",
        outcome,
        "-",
        format_seconds([time.perf_counter() - start]),
        "0",
    )


def measure_rows(small: bool) -> list[BenchmarkRow]:
    setups, rounds = (SMALL, 1) if small else (SETUPS, 9)
    rows = infonce.measure_rows((16, 32), 256, 1) if small else infonce.measure_rows(rounds=rounds)
    rate = measure_matrix_rate(rounds)
    for setup in setups:
        rows += [*steps.measure_rows(setup), measure_utilisation(setup, rate)]
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
    print(
        f"{get_device_name(get_device())}; Python {platform.python_version()}, torch "
        f"{torch.__version__}, "
        f"timm {timm.__version__}"
    )
    print("\n".join("| " + " | ".join(row) + " |" for row in measure_rows(small)))


if __name__ == "__main__":
    main()
