"""InfoNCE against the naive loss and against the floor of any exact method on this device."""

from benchmarks.gpu.step_rates import measure_matrix_rate
from benchmarks.losses import D, build_step, measure_info_nce
from benchmarks.measure import (
    BenchmarkRow,
    format_ratio,
    format_seconds,
    measure_alternating,
)


def measure_info_nce_against_floor(
    sizes: tuple[int, ...], memory_size: int, rounds: int
) -> list[BenchmarkRow]:
    """The rows of `measure_info_nce`, then time / floor of each size.

    Two products are unavoidable, q . m and softmax . m: 4 Q K D flop at the rate of one large
    matrix product.
    """
    rows = measure_info_nce(sizes, memory_size, rounds)
    rate = measure_matrix_rate(rounds)
    for count in sizes:
        seconds = measure_alternating({"ours": build_step("ours", count, memory_size)}, rounds)
        floor = 4 * count * memory_size * D / rate
        name = f"info_nce / its floor, 4 Q K D flop at the rate of a large product, Q = {count:,}"
        cells = format_seconds(seconds["ours"]), format_seconds([floor])
        ratio = format_ratio(seconds["ours"], [floor] * rounds)
        rows.append(BenchmarkRow("P1", name, *cells, ratio, "≤ 3", {**seconds, "floor": [floor]}))
    return rows
