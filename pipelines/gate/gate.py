"""Is a candidate good enough to take the champion's place? Decided on the same images; nothing is
written.

Differences are candidate - champion in top-1, with the interval of `sides.difference`; they speak
of these two models. Each model's labels are indices into its own class list, so right and wrong are
compared, and labels by wnid. Falls are not corrected for the number of sets: a correction would let
falls through, and promoting wrongly costs every user, refusing wrongly costs one retraining.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from densecl import paths
from densecl.analysis.paired import Nothing, Side, difference, read_side
from densecl.analysis.statistics import Estimate, wilson
from densecl.config.params import CONTROL_SET, Gate, Params, Report
from densecl.seeding import derive
from pipelines.formatting import counted, percent, points, signed
from pipelines.schemas import Champion, Criterion, Verdict

Name = Literal["val", "fall", "minimum", "chance"]


@dataclass(frozen=True)
class Pair:
    """Two models on the images that both were evaluated on."""

    difference: Estimate
    images: int
    note: str  # what was left out, and what else to know; "" or begins with a semicolon


def judge(params: Params, champion: Champion, root: Path = Path()) -> Verdict:
    """The verdict on `params.candidate` from the predictions under `root`: every criterion with
    value, interval and bound.

    Without a champion: top-1 on validation surely above chance, and the least top-1 of
    `retraining.gate.minimum`. With one: the lower bound of the difference on validation above
    -margin, and on no set a fall by more than max_drop that can be told from none.
    """
    mode, seed = params.candidate
    if champion.version is None:
        criteria = _first(params, root)
    else:
        pairs = {name: _pair(params, root, name) for name in params.evaluate.datasets}
        criteria = [
            val(params.retraining.gate, pairs[CONTROL_SET]),
            *(fall(params.retraining.gate, name, pair) for name, pair in pairs.items()),
        ]
    promoted = all(each.passed for each in criteria)
    return Verdict(
        promoted=promoted,
        champion=champion.version,
        mode=mode,
        seed=seed,
        criteria=tuple(criteria),
        said=_sentence(promoted, champion.version, criteria),
    )


def _first(params: Params, root: Path) -> list[Criterion]:
    """The absolute minimums of a candidate that has no champion to beat."""
    least = params.retraining.gate.minimum
    sides = {name: read_side(root, name, *params.candidate) for name in {CONTROL_SET, *least}}
    return [
        _chance(sides[CONTROL_SET], params.report),
        *(_minimum(name, sides[name], bound, params.report) for name, bound in least.items()),
    ]


def _chance(side: Side | Nothing, values: Report) -> Criterion:
    if isinstance(side, Nothing):
        return _unknown("chance", CONTROL_SET, 0.0, f"no evaluation: {side.reason}")
    bound, found = 1 / side.record.classes, wilson(side.correct[:, 0], values.confidence)
    held = found.low > bound
    said = f"{_share(found)}, {'' if held else 'not '}surely above chance ({percent(bound)})"
    return _known("chance", CONTROL_SET, found, bound, len(side.rows), held, said)


def _minimum(name: str, side: Side | Nothing, bound: float, values: Report) -> Criterion:
    if isinstance(side, Nothing):
        return _unknown(
            "minimum", name, bound, f"no evaluation, so no minimum can be shown: {side.reason}"
        )
    found = wilson(side.correct[:, 0], values.confidence)
    held = found.value >= bound
    said = f"{_share(found)}, {'at least' if held else 'below'} the minimum of {percent(bound)}"
    return _known("minimum", name, found, bound, len(side.rows), held, said)


def _pair(params: Params, root: Path, name: str) -> Pair | Criterion:
    """Both models on the images they share; a criterion that says why where they cannot be
    compared.
    """
    bound = -params.retraining.gate.max_drop
    ours, theirs = (
        read_side(root, name, *params.candidate),
        read_side(root, name, paths.CHAMPION, 0),
    )
    if isinstance(ours, Nothing) or isinstance(theirs, Nothing):
        return _uncompared(name, bound, ours, theirs)
    images = ours.rows.index.intersection(theirs.rows.index).sort_values()
    first, second = ours.on(images), theirs.on(images)
    other = images[(first.rows["wnid"] != second.rows["wnid"]).to_numpy()]
    if len(other) or images.empty:
        what = (
            f"{counted(len(other), 'image')} of another class, such as {other[0]}"
            if len(other)
            else "no image in common"
        )
        return _unknown(
            "fall",
            name,
            bound,
            f"evaluated from different manifests: {what}; evaluate both models again",
        )
    found = difference(first.correct, second.correct, params.report, derive(0, "gate", name))
    return Pair(found, len(images), _note(ours, theirs, len(images)))


def _note(ours: Side, theirs: Side, shared: int) -> str:
    """What of the two evaluations is not compared, and whether the models chose among different
    classes.
    """
    said = [
        f"{counted(len(side.rows) - shared, 'image')} left out that the {whose} alone was "
        f"evaluated on"
        for whose, side in (("candidate", ours), ("champion", theirs))
        if len(side.rows) > shared
    ]
    among = (ours.record.classes, theirs.record.classes)
    if among[0] != among[1]:
        said.append(f"the candidate chose among {among[0]} classes, the champion among {among[1]}")
    return "".join(f"; {each}" for each in said)


def _uncompared(name: str, bound: float, ours: Side | Nothing, theirs: Side | Nothing) -> Criterion:
    """Passes where neither model can be scored, or the champion never could; never on
    validation.
    """
    passed = False
    if isinstance(ours, Nothing):
        said = f"the candidate has no evaluation: {ours.reason}"
        if isinstance(theirs, Nothing):
            said, passed = (
                f"neither model has an evaluation: {ours.reason}",
                ours.unscorable and theirs.unscorable,
            )
    elif isinstance(theirs, Nothing):
        said, passed = f"the champion has no evaluation: {theirs.reason}", theirs.unscorable
    return _unknown("fall", name, bound, said, passed=passed and name != CONTROL_SET)


def val(values: Gate, pair: Pair | Criterion) -> Criterion:
    """Holds where the lower bound of the difference on validation lies above -margin."""
    margin = values.margin
    if isinstance(pair, Criterion):
        return pair.model_copy(update={"name": "val", "bound": -margin})
    found = pair.difference
    held = found.low > -margin
    if held:
        said = f"a fall of {points(margin)} is ruled out"
    elif found.high < -margin:
        said = f"surely a fall of more than {points(margin)}"
    else:
        said = (
            f"the interval is too wide to rule out a fall of "
            f"{points(margin)}{_needed(pair, margin)}"
        )
    return _known(
        "val", CONTROL_SET, found, -margin, pair.images, held, f"{_moved(found)}: {said}{pair.note}"
    )


def _needed(pair: Pair, margin: float) -> str:
    """How many images would do if the difference stayed: the interval narrows with their square
    root.
    """
    room = pair.difference.value + margin
    if room <= 0:
        return ""
    images = pair.images * ((pair.difference.value - pair.difference.low) / room) ** 2
    return f"; it needs more images, about {float(f'{images:.2g}'):,.0f} instead of {pair.images:,}"


def fall(values: Gate, name: str, pair: Pair | Criterion) -> Criterion:
    """Fails where a set falls by more than max_drop and its whole interval lies below 0."""
    most = values.max_drop
    if isinstance(pair, Criterion):
        return pair
    found = pair.difference
    deep, sure = found.value < -most, found.high < 0
    if deep and sure:
        span = f"({-100 * found.high:.1f} to {-100 * found.low:.1f})"
        said = f"falls by {points(-found.value)} {span}, more than {points(most)}"
    else:
        what = (
            f"more than {points(most)}, but it may be chance"
            if deep
            else f"no fall of more than {points(most)}"
        )
        said = f"{_moved(found)}: {what}"
    return _known("fall", name, found, -most, pair.images, not (deep and sure), said + pair.note)


def _sentence(promoted: bool, champion: str | None, criteria: Sequence[Criterion]) -> str:
    """The outcome with the sets that refused it, each once: a fall says more than an interval that
    is too wide.
    """
    if promoted and champion is None:
        return "promoted as the first champion: " + "; ".join(
            f"{each.dataset} {each.said}" for each in criteria
        )
    if promoted:
        compared = sum(each.name == "fall" and each.value is not None for each in criteria)
        said = (
            f"{CONTROL_SET} {criteria[0].said}; no fall that counts on {counted(compared, 'set')}"
        )
        return f"promoted over version {champion}: {said}"
    refusing = {each.dataset: each for each in criteria if not each.passed}  # fall comes after val
    stays = f", version {champion} stays" if champion else ""
    return f"refused{stays}: " + "; ".join(f"{name} {each.said}" for name, each in refusing.items())


def _share(found: Estimate) -> str:
    return f"top-1 {percent(found.value)} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _moved(found: Estimate) -> str:
    return f"{signed(found.value)} points ({signed(found.low)} to {signed(found.high)})"


def _known(
    name: Name, dataset: str, found: Estimate, bound: float, images: int, passed: bool, said: str
) -> Criterion:
    return Criterion(
        name=name,
        dataset=dataset,
        value=found.value,
        low=found.low,
        high=found.high,
        bound=bound,
        images=images,
        passed=passed,
        said=said,
    )


def _unknown(name: Name, dataset: str, bound: float, said: str, passed: bool = False) -> Criterion:
    """Of what could not be computed."""
    return Criterion(
        name=name,
        dataset=dataset,
        value=None,
        low=None,
        high=None,
        bound=bound,
        images=0,
        passed=passed,
        said=said,
    )
