"""Records that the steps of a pipeline exchange: references and verdicts, never data; fractions are
in [0, 1].
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from densecl.artifacts import Artifact
from densecl.config.cluster_params import EngineName

StageResult = Literal["ran", "restored", "unchanged"]
# Files written before 0.2.0 call a rejected candidate `kept`.
Outcome = Annotated[
    Literal["promoted", "rejected", "unchanged", "failed", "skipped"],
    BeforeValidator(lambda value: "rejected" if value == "kept" else value),
]

# val and fall: against the champion; anchor and anchor-fall: the same against the anchor.
# Of a difference, by its interval: wholly below 0; above the bound; neither.
DifferenceVerdict = Literal["worse", "not worse", "undecided"]
CriterionName = Literal["val", "fall", "anchor", "anchor-fall", "minimum", "chance"]


class StageRef(Artifact):
    """A DVC stage after its step: what it read and wrote, as path -> md5 (a folder's ends in
    .dir).
    """

    stage: str
    deps: dict[str, str]
    outs: dict[str, str]


class ClusterJob(Artifact):
    """A job on other machines that may outlast the command that submitted it."""

    id: str  # the cluster's
    engine: EngineName
    stages: tuple[str, ...]
    key: str  # of what the first stage reads: DVC's key of its runs
    log: str
    submitted: float  # seconds since 1970


class ClassShare(Artifact):
    """Usable images of one class, before and now."""

    wnid: str
    before: int
    now: int


class DistributionShift(Artifact):
    """How the usable images of a dataset differ from those of an earlier time."""

    dataset: str
    title: str = ""  # of datasets.<dataset>.title, if there is one
    images: int  # now
    before: int | None  # None: there is nothing to compare with
    classes_new: tuple[str, ...]
    classes_removed: tuple[str, ...]
    psi: dict[str, float]  # feature -> population stability index, then against now
    chance: dict[str, float] = Field(
        default_factory=dict
    )  # feature -> what the index of two draws from one population exceeds once in twenty

    @property
    def shown(self) -> str:
        """The name for readers."""
        return self.title or self.dataset


class DatasetDrift(DistributionShift):
    """Changes of one dataset since the last judged candidate."""

    new: int
    removed: int
    changed: int  # the same path, another content
    relabelled: int = 0  # files whose content was there before, of other classes only
    mix: tuple[ClassShare, ...] = ()  # the classes whose share moved most, largest first
    evidence: tuple[str, ...]  # some paths of new, removed and changed images


class ReferenceDrift(DistributionShift):
    """Changes of one dataset since a version of the registry was trained."""

    reference: str  # which version this is, such as champion
    version: str


class SourceChanges(Artifact):
    """Changes of all sources; `reports/changes.json`."""

    sets: tuple[DatasetDrift, ...]
    params: tuple[
        str, ...
    ]  # what else makes a new candidate: params or code that changed, in words
    made_of: dict[str, Any] = Field(
        default_factory=dict
    )  # those params, and digests of that code, as they are now
    references: tuple[ReferenceDrift, ...] = ()  # against the champion and the first baseline

    @property
    def has_changes(self) -> bool:
        return bool(self.params) or any(
            s.new or s.removed or s.changed or s.before is None for s in self.sets
        )


class Anchor(Artifact):
    """The version that no later candidate may fall behind, with its files in models/anchor/seed-0
    unless it is the champion.
    """

    version: str
    origin: Literal["first champion", "promoted by hand", "named in params"]
    validation: str | None = None  # hash of the validation images when it was chosen


class Champion(Artifact):
    """The registry version that a candidate must beat, with its files in models/champion/seed-0;
    version None if there is none.
    """

    version: str | None
    anchor: Anchor | None = None  # None: the champion itself
    is_candidate: bool = False  # the candidate is this model, byte for byte


class Criterion(Artifact):
    """One criterion of the gate: a value, its interval, its bound and whether it passed."""

    name: CriterionName
    dataset: str
    value: float | None  # None: could not be computed, and then `said` says why
    low: float | None
    high: float | None
    bound: float
    images: int
    passed: bool
    said: str  # in words
    verdict: DifferenceVerdict | None = None  # None: no difference, or not computed


class GateVerdict(Artifact):
    """The gate's decision; `reports/gate.json`."""

    promoted: bool
    champion: str | None  # version; None: the first candidate
    anchor: str | None = None  # version; None: there is no champion
    mode: str
    seed: int
    criteria: tuple[Criterion, ...]
    said: str  # in one sentence, with the datasets that failed it
    validation: str | None = None  # hash of the validation images
    titles: dict[str, str] = Field(default_factory=dict)  # dataset -> its display name, if any
    candidates: int = 1  # tried on these validation images, with this one
    winner_bias: float | None = None  # how much better the best of as many looks than it is


class RegisteredVersion(Artifact):
    """A version in the registry."""

    name: str
    version: str
    promoted: bool
    shortfalls: tuple[str, ...] = ()  # of a champion that stays: misses of chance and minimums


def read_clock() -> str:
    """Now, ISO 8601 with time zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


class Promotion(Artifact):
    """A move of the alias `champion`, kept in the registry until all that follows it is done."""

    version: str
    who: str
    why: str
    at: str = Field(default_factory=read_clock)
    by_hand: bool = False
    rolled_back: str | None = None  # the version that this one follows after a rollback
    entries: tuple[str, ...] = ()  # the stack of champions afterwards


class RetrainingRecord(Artifact):
    """Outcome of a retraining: one line of reports/retraining.csv, and the content of
    notifications.
    """

    started: str  # ISO 8601 with time zone
    seconds: float
    outcome: Outcome
    said: str  # one sentence
    version: str | None = None
    champion: str | None = None  # version that is champion afterwards
    zenml_run: str | None = None
    git: str | None = None  # commit or tag that holds its params, dvc.lock and small reports


class Tick(Artifact):
    """Outcome of one tick of the scheduler: one line of reports/schedule.csv; times are ISO 8601
    with a time zone.
    """

    scheduled: str
    started: str
    seconds: float
    outcome: Outcome
    status: int | None = None  # the retraining's exit status; None: it was not started
    detail: str = ""
