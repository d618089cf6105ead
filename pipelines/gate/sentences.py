"""The gate's verdict in one sentence."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from densecl.config.params import CONTROL_SET
from densecl.pages.formatting import format_count, join_names
from pipelines.schemas import Criterion


def format_verdict(
    promoted: bool,
    champion: str | None,
    criteria: Sequence[Criterion],
    titles: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The outcome and the datasets that failed, each once; a drop takes precedence over an interval
    that is too wide, and the champion over the anchor. The need of another anchor is always
    stated. `titles`: display names of datasets.
    """

    def name(dataset: str) -> str:
        return titles.get(dataset, dataset)

    if not promoted:
        refusing = {
            (c.dataset, c.name == "anchor" and c.value is None): c
            for c in sorted(criteria, key=_rank)
            if not c.passed
        }
        stays = f", version {champion} stays" if champion else ""
        return f"refused{stays}: " + "; ".join(
            f"{name(c.dataset)} {c.said}" for c in refusing.values()
        )
    if champion is None:
        return "promoted as the first champion: " + "; ".join(
            f"{name(criterion.dataset)} {criterion.said}" for criterion in criteria
        )
    by_name = {criterion.name: criterion for criterion in criteria}
    falls = Counter(c.verdict for c in criteria if c.name == "fall" and c.verdict)
    tally = join_names([f"{word} on {count}" for word, count in falls.items()])
    count = format_count(falls.total(), "dataset")
    sentence = f"{name(CONTROL_SET)} {by_name['val'].said}; of {count}, {tally}"
    if "anchor" in by_name:
        sentence += f"; {by_name['anchor'].said}"
    return f"promoted over version {champion}: {sentence}"


def _rank(criterion: Criterion) -> int:
    """Of several criteria that fail on one dataset, the last one is stated."""
    return ("chance", "minimum", "anchor", "anchor-fall", "val", "fall").index(criterion.name)
