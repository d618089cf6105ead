"""The gate's verdict in one sentence."""

from collections.abc import Sequence

from densecl.config.params import CONTROL_SET
from densecl.pages.formatting import format_count
from pipelines.schemas import Criterion


def format_verdict(promoted: bool, champion: str | None, criteria: Sequence[Criterion]) -> str:
    """The outcome and the datasets that failed, each once; a drop takes precedence over an interval
    that is too wide, and the champion over the anchor. The need of another anchor is always
    stated.
    """
    if not promoted:
        refusing = {
            (c.dataset, c.name == "anchor" and c.value is None): c
            for c in sorted(criteria, key=_rank)
            if not c.passed
        }
        stays = f", version {champion} stays" if champion else ""
        return f"refused{stays}: " + "; ".join(f"{c.dataset} {c.said}" for c in refusing.values())
    if champion is None:
        return "promoted as the first champion: " + "; ".join(
            f"{criterion.dataset} {criterion.said}" for criterion in criteria
        )
    by_name = {criterion.name: criterion for criterion in criteria}
    compared = sum(c.name == "fall" and c.value is not None for c in criteria)
    sentence = (
        f"{CONTROL_SET} {by_name['val'].said}; no fall that "
        f"counts on {format_count(compared, 'set')}"
    )
    if "anchor" in by_name:
        sentence += f"; {by_name['anchor'].said}"
    return f"promoted over version {champion}: {sentence}"


def _rank(criterion: Criterion) -> int:
    """Of several criteria that fail on one dataset, the last one is stated."""
    return ("chance", "minimum", "anchor", "anchor-fall", "val", "fall").index(criterion.name)
