"""How lines, costs and changes are shown: percent, points, words."""

from __future__ import annotations

from dataclasses import dataclass

from densecl import paths
from densecl.analysis.differences import MEAN
from densecl.compare.changes import Changes, Costs
from densecl.compare.deltas import Line
from densecl.compare.differences import Versus
from densecl.compare.image_contents import SetChange
from densecl.compare.summary import interval, percent, points
from densecl.report.charts.svg import COLOURS

CALLS = {
    "better": "better",
    "worse": "worse",
    "open": "not told apart",
    "identical": "identical",
    "unlike": "not judged",
    "missing": "missing",
}
WIDTH = 200  # of the picture of an interval


@dataclass(frozen=True)
class Picture:
    """An interval on the scale of its table, in units of WIDTH."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Entry:
    """A line as it is shown."""

    line: Line
    label: str
    a: str
    b: str
    change: str
    between: str
    p: str
    call: str
    about: str
    picture: Picture | None
    source: str


def modes(found: Versus) -> list[str]:
    """In the report's order; one that it does not know comes last."""
    return sorted(found.modes, key=lambda mode: [*COLOURS, mode].index(mode))


def side(found: Versus, letter: str) -> dict[str, str]:
    x = found.a if letter == "A" else found.b
    plan = x.plan
    seeds = f"seed{'s'[: len(plan.seeds) > 1]} {', '.join(map(str, plan.seeds))}"
    return {
        "letter": letter,
        "name": x.origin.name,
        "commit": x.origin.commit[:12],
        "dirty": "changed since" if x.origin.dirty else "",
        "holds": f"{len(plan.datasets)} "
        f"set{'s'[: len(plan.datasets) > 1]}; {', '.join(plan.modes)}; {seeds}",
    }


def far(found: Versus) -> float:
    """The largest limit of an interval: the end of the pictures' scale."""
    return (
        max((max(-e.low, e.high) for line in found.lines if (e := line.difference)), default=0)
        or 0.01
    )


def entry(line: Line, far: float, of_mode: tuple[int, ...]) -> Entry:
    e = line.difference
    files = [
        str(paths.predictions(line.dataset, line.mode, seed))
        for seed in line.seeds
        if line.dataset != MEAN
    ]
    about = [f"{line.images:,} images"] if line.images else []
    note = (
        line.note.partition("; ")[2] if line.dataset == MEAN else line.note
    )  # the sets stand above it
    about += [f"left out: {line.left_out}"] if str(line.left_out) else []
    if line.seeds and line.seeds != of_mode:
        about.append(f"only seed{'s'[: len(line.seeds) > 1]} {', '.join(map(str, line.seeds))}")
    return Entry(
        line,
        "mean of shifted" if line.dataset == MEAN else line.dataset,
        "–" if line.a is None else percent(line.a),
        "–" if line.b is None else percent(line.b),
        points(e.value) if e else CALLS[line.call],
        interval(e) if e else "",
        "" if line.p_holm is None else "< 0.001" if line.p_holm < 0.001 else f"{line.p_holm:.3f}",
        CALLS[line.call],
        "; ".join([*about, *([note] if note else [])]),
        Picture(*(WIDTH / 2 * (1 + x / far) for x in (e.low, e.value, e.high))) if e else None,
        ", ".join(files),
    )


def cost(costs: Costs) -> dict[str, str]:
    """Each entry "A → B"; what was not trained again is the same training."""

    def arrow(name: str, show: str, factor: float = 1.0) -> str:
        return f"{factor * costs.a[name]:{show}} → {factor * costs.b[name]:{show}}"

    return {
        "mode": costs.mode,
        "step": arrow("step_seconds", ",.1f", 1000),
        "ratio": f"{costs.b['step_seconds'] / costs.a['step_seconds']:.2f} ×",
        "none": arrow("against_none", ".2f"),
        "memory": arrow("peak_memory_bytes", ".2f", 2.0**-30),
        "minutes": arrow("wall_seconds", ".1f", 1 / 60),
        "rate": arrow("images_per_second", ",.0f"),
        "same": "the same training" if costs.same else "",
        "device": costs.devices[0]
        if costs.devices[0] == costs.devices[1]
        else " → ".join(costs.devices),
    }


def data(change: SetChange, changed: Changes) -> tuple[str, str, str, str] | None:
    """Set, images of A, of B, what differs; None where nothing does."""
    kinds = (
        (change.added, "added"),
        (change.removed, "removed"),
        (change.changed, "with another content"),
        (change.relabelled, "with another class"),
        (change.moved, "of those added only renamed"),
    )
    said = [f"{count:,} {kind}" for count, kind in kinds if count]
    lost = [letter for letter, images in zip("AB", change.images, strict=True) if images is None]
    if lost:
        said.append(f"no manifest in {' and '.join(lost)}")
    elif not said and not change.same:
        said.append("the same images; other facts of the manifest differ")
    if changed.sources.get(change.dataset) is False and not lost:
        said.append("the folder or archive has changed")
    counts = ["–" if n is None else f"{n:,}" for n in change.images]
    return (change.dataset, counts[0], counts[1], ", ".join(said)) if said else None


def alike(changed: Changes) -> str:
    same = [f"{d.dataset} ({d.images[0]:,})" for d in changed.data if not data(d, changed)]
    if not changed.data:
        return "Images: not known, there are no manifests."
    return f"The same images: {', '.join(same)}." if same else ""


def models(changed: Changes) -> str:
    """Which models were trained again."""
    same, other = (
        [run for run, alike in changed.models.items() if alike == want] for want in (True, False)
    )
    said = [
        f"{', '.join(runs)}: {text}"
        for runs, text in ((other, "other weights"), (same, "the same weights"))
        if runs
    ]
    return "; ".join(said)
