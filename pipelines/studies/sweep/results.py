"""What the trials of a sweep found: the values of each mode, and what tuning gained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
import pandas as pd

from densecl import paths
from densecl.analysis.paired import estimate_difference
from densecl.analysis.sampled_value import Estimate
from densecl.artifacts import read_json
from densecl.config.params import Mode
from densecl.config.sweep_params import Choice
from densecl.tuning.expected_maximum import ExpectedMaximum, estimate_expected_maxima
from densecl.tuning.records import SweepPlan, TrialResult
from pipelines.studies.sweep.queue import TrialQueue

MIN_TRIALS_FOR_SHARES = 4  # that Optuna's estimate of importance needs


@dataclass(frozen=True)
class ModeTrials:
    """All trials of one mode, in order; the first has the values of the params."""

    mode: Mode
    results: tuple[TrialResult, ...]
    gain: Estimate | None  # of the best over the first, on the images that confirm
    importances: dict[str, float]  # key -> share of the variance of the scores

    @property
    def best(self) -> TrialResult:
        """The highest top-1 on the images that choose; of equal ones the lowest loss, then the
        first.
        """
        return min(self.results, key=_rank)

    @property
    def best_so_far(self) -> list[float]:
        """After each trial, the highest top-1 on the images that choose."""
        scores = [result.top1_select for result in self.results]
        return [max(scores[: count + 1]) for count in range(len(scores))]

    @property
    def expected_maxima(self) -> list[ExpectedMaximum]:
        """Of the trials with drawn values."""
        return estimate_expected_maxima([result.top1_select for result in self.results[1:]])


def _rank(result: TrialResult) -> tuple[float, float, int]:
    loss = math.inf if result.loss_select is None else result.loss_select
    return -result.top1_select, loss, result.index


def read_trials(plan: SweepPlan, queue: TrialQueue, confidence: float) -> list[ModeTrials]:
    """The trials of every mode; all have finished."""
    return [
        ModeTrials(
            mode,
            results := tuple(
                read_json(TrialResult, paths.trial_result(plan.name, mode, index))
                for index in range(queue.budget)
            ),
            estimate_gain(plan.name, results, confidence),
            compute_importances(queue.studies[mode]),
        )
        for mode in plan.modes
    ]


def estimate_gain(name: str, results: Sequence[TrialResult], confidence: float) -> Estimate | None:
    """Top-1 of the best trial minus that of the first, on the images that confirm, which chose
    neither; None if one of them did not finish.
    """
    best, first = min(results, key=_rank), results[0]
    if best.failure or first.failure:
        return None
    if best is first:
        return Estimate(0.0, 0.0, 0.0)
    outcomes = []
    for result in (best, first):
        rows = pd.read_parquet(paths.trial_predictions(name, result.mode, result.index))
        confirm = rows[rows["part"] == "confirm"].set_index("image_id").sort_index()
        outcomes.append(confirm[["correct"]].to_numpy(float))
    return estimate_difference(outcomes[0], outcomes[1], confidence)


def compute_importances(study: optuna.Study) -> dict[str, float]:
    """Share of each key in the variance of the scores, by Optuna's fANOVA; {} for few trials, and
    where all scores are equal.
    """
    drawn = [trial for trial in study.get_trials(deepcopy=False) if trial.params]
    scores = {trial.value for trial in drawn}
    if len(drawn) < MIN_TRIALS_FOR_SHARES or len(scores) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    # Named, as else only keys that all trials have count, and the first has none.
    keys = list(drawn[0].params)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=keys)
    return {key: float(share) for key, share in shares.items()}


def build_trial_table(modes: Sequence[ModeTrials]) -> pd.DataFrame:
    """One row per trial, as reports/sweep.csv has it; a key that a mode does not vary is empty."""
    rows: list[dict[str, Choice]] = []
    for trials in modes:
        for result in trials.results:
            fixed = result.model_dump(exclude={"values", "images"})
            rows.append(
                {
                    **{name: fixed.pop(name) for name in ("mode", "index")},
                    "chosen": result is trials.best,
                    **result.values,
                    **fixed,
                }
            )
    frame = pd.DataFrame(rows, dtype=object)  # a count stays one beside empty cells
    keys = [name for name in frame.columns if "." in name]
    places = ["mode", "index", "chosen", *keys]
    return frame[[*places, *(name for name in frame.columns if name not in places)]]
