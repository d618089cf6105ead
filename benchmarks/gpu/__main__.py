"""What only a GPU can show, within a budget of 8 minutes.

Needs torch, timm, torchvision, pandas, pyarrow, pydantic, a YAML reader and safetensors, and no
images; the parts resume, predict and loader also need what a training run needs.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu.budget import Part, PartResult, Task, run_parts
from benchmarks.gpu.cost import measure_cost_stage
from benchmarks.gpu.ddp import measure_ddp
from benchmarks.gpu.exactness import (
    COMPILED_TARGETS,
    EAGER_TARGETS,
    MASKS,
    measure_choices,
    measure_colors,
    measure_softmax,
    measure_whole_steps,
)
from benchmarks.gpu.infonce import measure_info_nce_against_floor
from benchmarks.gpu.loader import measure_loader
from benchmarks.gpu.page import describe_machine, write_json_results, write_page
from benchmarks.gpu.predictions import measure_predictions
from benchmarks.gpu.resume import measure_resume
from benchmarks.gpu.setups import SETUPS, SMALL_SETUP, change_train
from benchmarks.gpu.step_rates import measure_device_waits, measure_setup
from benchmarks.losses import SIZES, K
from benchmarks.measure import format_rows
from benchmarks.steps import MODES
from densecl.errors import DenseclError

SECONDS = {  # per part; with GRACE and the imports they stay below 8 minutes
    "infonce": 40.0,
    "exact": 80.0,
    "steps": 80.0,
    "resume": 60.0,
    "cost": 40.0,
    "predict": 15.0,
    "loader": 25.0,
    "ddp": 15.0,
    "compiled": 80.0,
}
# Written by a full run; --small and --only write what they are told to.
JSON, PAGE = Path("benchmarks/gpu.json"), Path("docs/performance.md")


def build_parts(small: bool) -> list[Part]:
    """All parts; `small`: the same code at sizes that mean nothing."""
    setups = {"small": SMALL_SETUP} if small else SETUPS
    smallest = next(iter(setups.values()))
    compiled = {size: change_train(setup, compile=True) for size, setup in setups.items()}
    if small:
        infonce = [Task("all", partial(measure_info_nce_against_floor, (16, 32), 256, 1))]
        queries, images, patches, memory = 16, 2, 4, 256
        predicted, loaded, rounds, pixels, cost_seconds = 4, 8, 1, 64, 0.1
    else:
        infonce = [Task("all", partial(measure_info_nce_against_floor, SIZES, K, 9))]
        queries, images, patches, memory = 3200, 64, 196, K
        predicted, loaded, rounds, pixels, cost_seconds = 256, 8192, 1, 512, 10.0
    is_gpu = torch.cuda.is_available()
    exact_setup = replace(smallest, batch=min(smallest.batch, 16))
    tasks = {
        "infonce": infonce,
        "exact": [
            *(Task(mask, partial(measure_softmax, queries, memory, mask)) for mask in MASKS),
            Task("choices", partial(measure_choices, images, patches, memory)),
            Task("colours", partial(measure_colors, exact_setup)),
            *(
                Task(
                    f"{mode}, compiled" if is_compiled else mode,
                    partial(measure_whole_steps, exact_setup, mode, targets, is_compiled),
                )
                for is_compiled, targets in ((False, EAGER_TARGETS), (True, COMPILED_TARGETS))
                for mode in MODES
            ),
        ],
        "steps": [
            *(Task(size, partial(measure_setup, setup)) for size, setup in setups.items()),
            *([Task("waits", partial(measure_device_waits, exact_setup))] if is_gpu else []),
        ],
        "compiled": [Task(size, partial(measure_setup, setup)) for size, setup in compiled.items()],
        "resume": [
            Task(f"{mode} of {setup.setting}", partial(measure_resume, setup, mode))
            for setup in (exact_setup, change_train(exact_setup, compile=True))
            for mode in ("dense", "global")
        ],
        "cost": [Task("all", partial(measure_cost_stage, smallest, cost_seconds))],
        "predict": [Task("all", partial(measure_predictions, smallest, predicted, pixels))],
        "loader": [Task("all", partial(measure_loader, smallest, loaded, rounds, pixels))],
        "ddp": [Task(mode, partial(measure_ddp, smallest, mode)) for mode in MODES],
    }
    factor = 10 if small else 1  # nobody waits for a GPU, and a CPU may be busy
    return [Part(name, factor * seconds, tasks[name]) for name, seconds in SECONDS.items()]


def measure_parts(
    parts: Sequence[Part], json_path: Path | None, page: Path | None
) -> list[PartResult]:
    """Measure and print the rows as they come; what is cut or fails goes to stderr.

    The files are written after each part, so that what ends this process loses one part.
    """
    results = []
    for result in run_parts(parts):
        results.append(result)
        print(format_rows(result.rows), flush=True)
        print(f"{result.name}: {result.seconds:.0f} of {result.budget:.0f} s", file=sys.stderr)
        for line in (*result.cut, *result.failed):
            print(line, file=sys.stderr)
        if json_path:
            write_json_results(json_path, results)
        if page:
            write_page(page, results)
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 if a part failed; what was cut for time is no failure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try it without a GPU")
    parser.add_argument(
        "--only", nargs="+", choices=SECONDS, metavar="PART", help=", ".join(SECONDS)
    )
    parser.add_argument("--json", type=Path, help=f"where the numbers go ({JSON})")
    parser.add_argument("--page", type=Path, help=f"whose table is replaced ({PAGE})")
    args = parser.parse_args(arguments)
    if not args.small and not torch.cuda.is_available():
        print("no GPU found; expected one (--small tries the script on the CPU)", file=sys.stderr)
        return 2
    print(describe_machine())
    parts = [part for part in build_parts(args.small) if part.name in (args.only or SECONDS)]
    is_whole = not args.small and not args.only
    try:
        results = measure_parts(
            parts,
            args.json or (JSON if is_whole else None),
            args.page or (PAGE if is_whole else None),
        )
    except (DenseclError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 2 if any(result.failed for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
