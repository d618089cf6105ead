"""`reports/ablations.html`: every variant against its base, by factor."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densecl import paths
from densecl.analysis.results import Comparison
from densecl.analysis.variants import count_variant_tests
from densecl.artifacts import write_text
from densecl.pages.formatting import format_count, format_level, format_points
from densecl.pages.templates import create_environment
from densecl.report.charts.mode_styles import COLOURS
from densecl.report.charts.svg import INK, PAPER, RULE, Chart, draw_chart
from densecl.report.sentences import describe_limits
from pipelines.studies.ablation.factors import Ablation
from pipelines.studies.ablation.results import VariantRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW_SEEDS_HIDE = "what a factor changes, only about these trained models"
# Column of the table -> title and factor.
SHOWN = {
    "true_matches_pairs": ("True matches, pairs of the loss, %", 100.0),
    "true_matches_last_block": ("last block, %", 100.0),
    "rank_images": ("Effective rank, images", 1.0),
    "rank_patches": ("patches", 1.0),
    "loss_spread": ("Spread of the loss, nats", 1.0),
}


def write_page(
    comparison: Comparison, rows: Sequence[VariantRow], ablation: Ablation, file: Path
) -> None:
    """Write the page: one file that opens offline."""
    environment = create_environment(Path(__file__).parents[1] / "templates")
    claims = list(dict.fromkeys(name for row in rows for name in row.differences))
    shown = [name for name in SHOWN if any(name in row.measures for row in rows)]
    text = environment.get_template("ablations.html").render(
        headline=describe_size(comparison, rows),
        file=file,
        claims=claims,
        measures=[SHOWN[name][0] for name in shown],
        factors=[
            (factor, [_format_row(row, claims, shown) for row in rows if row.factor == factor])
            for factor in ablation.factors
        ],
        charts=[chart for claim in claims if (chart := draw_differences(rows, claim)) is not None],
        note=describe_family(comparison),
        absent=ablation.list_absent(),
        warning=describe_limits(len(comparison.plan.seeds), FEW_SEEDS_HIDE),
    )
    write_text(paths.ABLATIONS_PAGE, text)


def describe_size(comparison: Comparison, rows: Sequence[VariantRow]) -> str:
    factors = len({row.factor for row in rows})
    return (
        f"{format_count(len(rows), 'variant')} in {format_count(factors, 'factor')}, "
        f"{format_count(len(comparison.plan.seeds), 'seed')} each."
    )


def describe_family(comparison: Comparison) -> str:
    level = f"{format_level(comparison.plan.values.confidence)} %"
    tests = count_variant_tests(comparison)
    return (
        "Difference from the base in points, same images and seeds. Verdicts are one family of "
        f"{format_count(tests, 'test')}, all claims and costs of all variants: simultaneous "
        f"{level} intervals (Bonferroni). The first column is not tested and has intervals of "
        f"{level} each. Other columns: after the last epoch, means over the seeds, that of the "
        "base beside them."
    )


def _format_row(row: VariantRow, claims: Sequence[str], shown: Sequence[str]) -> dict[str, Any]:
    return {
        "row": row,
        "differences": [_format_difference(row, claim) for claim in claims],
        "measures": [_format_measure(row, name) for name in shown],
        "step_time": _format_step_time(row),
    }


def _format_difference(row: VariantRow, claim: str) -> tuple[str, str, str]:
    """Points, interval, verdict."""
    found = row.differences.get(claim)
    if found is None:
        return "–", "", ""
    span = f"{format_points(found.low)} to {format_points(found.high)}"
    return format_points(found.value), span, found.verdict


def _format_measure(row: VariantRow, name: str) -> tuple[str, str]:
    """Its value, and that of the base."""
    factor = SHOWN[name][1]
    digits = 3 if name == "loss_spread" else 1
    own, base = row.measures.get(name), row.base_measures.get(name)
    return (
        "–" if own is None else f"{factor * own:.{digits}f}",
        "" if own is None or base is None else f"{row.base} {factor * base:.{digits}f}",
    )


def _format_step_time(row: VariantRow) -> tuple[str, str]:
    if row.step_time is None:
        return "–", ""
    value, low, high = row.step_time
    return f"{value:.2f} ×", "" if low is None or high is None else f"{low:.2f} to {high:.2f}"


def draw_differences(rows: Sequence[VariantRow], claim: str) -> Chart | None:
    """Differences of all variants on one claim, by factor; None without any."""
    drawn = [row for row in rows if claim in row.differences]
    if not drawn:
        return None

    def draw(axes: "Axes") -> None:
        for y, row in enumerate(drawn):
            _draw_row(axes, y, row, claim)
            if y and row.factor != drawn[y - 1].factor:
                axes.axhline(y - 0.5, color=RULE, linewidth=1)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks(range(len(drawn)), [row.variant for row in drawn])
        axes.set_ylim(len(drawn) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("difference from the base, points")

    values = (f"{r.variant} {format_points(r.differences[claim].value)}" for r in drawn)
    return draw_chart(
        f"ablation-{claim}",
        claim,
        (5.6, 0.8 + 0.24 * len(drawn)),
        f"Differences from the base in points, {claim}: {', '.join(values)}",
        "Right of the line: better than the base. Filled: the interval leaves out 0."
        + ("" if any(r.differences[claim].verdict for r in drawn) else " Not tested."),
        draw,
    )


def _draw_row(axes: "Axes", y: int, row: VariantRow, claim: str) -> None:
    found: Any = row.differences[claim]
    colours: Mapping[str, str] = COLOURS
    colour = colours[row.base]
    axes.plot([100 * found.low, 100 * found.high], [y, y], color=colour, linewidth=2)
    is_sure = found.low > 0 or found.high < 0
    axes.plot(
        100 * found.value,
        y,
        "o",
        markersize=6,
        color=colour,
        markeredgewidth=1.5,
        markerfacecolor=colour if is_sure else PAPER,
    )
