"""All GPU rows, and how much of the device `none` uses: `python -m benchmarks.gpu [--small]`.

Needs torch, timm, torchvision, pandas, pyarrow, pydantic, PyYAML and safetensors, no more, and no
image. Without a GPU, `--small` runs the same code on the CPU with sizes that say nothing.
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
from benchmarks.measure import Row, alternate, shown
from benchmarks.steps import Setup
from densecl.config.params import Train
from densecl.network.vit import build, tokens
from densecl.runtime.hardware import device, device_name

BF16 = Train(batch_size=256, precision="bf16")
SETUPS = [
    Setup(
        "vit_tiny_patch16_224",
        batch=256,
        train=BF16,
        targets=("≤ 1.15", "≤ 1.10", "≤ 1.02", "≤ 1.02"),
    ),
    Setup(
        "vit_small_patch16_224",
        batch=256,
        train=BF16,
        targets=("≤ 1.08", "≤ 1.07", "≤ 1.02", "≤ 1.02"),
    ),
    Setup(
        "vit_base_patch16_224",
        batch=128,
        train=BF16,
        targets=("≤ 1.04", "≤ 1.05", "≤ 1.02", "≤ 1.02"),
    ),
]
SMALL = [
    Setup(
        "vit_tiny_patch16_224",
        {"img_size": 32, "embed_dim": 48, "depth": 2},
        4,
        256,
        Train(batch_size=4),
        rounds=1,
    )
]
SIDE = {"cuda": 8192, "cpu": 512}  # of the square matrices whose product gives the device's rate


def matrix_rate(rounds: int) -> float:
    """Flop a second of a large matrix product: in bf16 on a GPU, in fp32 on the CPU."""
    where, side = device(), SIDE[device().type]
    kind = torch.bfloat16 if where.type == "cuda" else torch.float32
    left, right = (torch.randn(side, side, device=where, dtype=kind) for _ in range(2))
    return (
        2
        * side**3
        / median(alternate({"product": partial(torch.matmul, left, right)}, rounds)["product"])
    )


def utilisation(setup: Setup, rate: float) -> Row:
    """Model flop of a `none` step (3 times a forward pass of both views) a second, as a share of
    the device's rate.
    """
    model, seconds = build(setup.network, steps.CLASSES, 0).to(device()), []
    size = (setup.batch * 2, 3, *model.patch_embed.img_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tokens(model, torch.zeros(size, device=device()))
    seconds = alternate({"none": steps.step(setup, "none")}, setup.rounds)["none"]
    reached = 3 * counter.get_total_flops() / median(seconds)
    return Row(
        "MFU",
        f"model-flop utilisation of none, {setup.model}, batch {setup.batch}",
        f"{reached / 1e12:.2f} Tflop/s",
        f"{rate / 1e12:.2f} Tflop/s",
        f"{reached / rate:.3f}",
        "-",
    )


def waits(setup: Setup) -> Row:
    """A dense step with every wait for the device made an error."""
    take = steps.step(setup, "dense")
    take()
    torch.cuda.set_sync_debug_mode("error")
    begun = time.perf_counter()
    try:
        take()
        found = "0"
    except RuntimeError as error:
        found = str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Row(
        "P4",
        "waits for the device in a dense step",
        found,
        "-",
        shown([time.perf_counter() - begun]),
        "0",
    )


def rows(small: bool) -> list[Row]:
    setups, rounds = (SMALL, 1) if small else (SETUPS, 9)
    found = infonce.rows((16, 32), 256, 1) if small else infonce.rows(rounds=rounds)
    rate = matrix_rate(rounds)
    for setup in setups:
        found += [*steps.rows(setup), utilisation(setup, rate)]
        if torch.cuda.is_available():
            found.append(waits(setup))
    return found


def main() -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    flags.add_argument(
        "--small", action="store_true", help="tiny sizes, to try the script without a GPU"
    )
    small = flags.parse_args().small
    if not small and not torch.cuda.is_available():
        raise SystemExit("no GPU found; expected one (--small tries the script on the CPU)")
    print(
        f"{device_name(device())}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"timm {timm.__version__}"
    )
    print("\n".join("| " + " | ".join(row) + " |" for row in rows(small)))


if __name__ == "__main__":
    main()
