"""What the report reads about training: curves, cost, and the records that MLflow holds."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from densecl import paths
from densecl.artifacts import ReportPlan, TrainingFacts, read_json
from densecl.cost.result import CostReport
from densecl.errors import DataError
from densecl.monitoring.training_records import TrainingRecord, TrainingRecords

Histories = dict[str, list[pd.DataFrame]]  # mode -> one a seed


@dataclass(frozen=True)
class TrainingResults:
    """Runs are (mode, seed); of runs without a record, `no_record` says why."""

    histories: Histories
    cost: CostReport | None
    records: dict[tuple[str, int], TrainingRecord]
    no_record: str

    def list_records(self, mode: str) -> list[TrainingRecord]:
        """The records of a mode's seeds."""
        return [record for (name, _), record in self.records.items() if name == mode]


def list_fingerprints(plan: ReportPlan, root: Path = Path()) -> list[str]:
    """Fingerprints of the training runs of the plan."""
    return [facts.fingerprint for _, facts in _iter_facts(plan, root)]


def _iter_facts(plan: ReportPlan, root: Path) -> Iterator[tuple[tuple[str, int], TrainingFacts]]:
    for run in itertools.product(plan.modes, plan.seeds):
        path = root / paths.training_folder(*run) / "training.json"
        if path.exists():
            yield run, read_json(TrainingFacts, path)


def read_training_results(
    plan: ReportPlan, root: Path, records: TrainingRecords
) -> TrainingResults:
    """Everything that is there; what is missing is left out."""
    by_run = {
        run: records.by_fingerprint[facts.fingerprint]
        for run, facts in _iter_facts(plan, root)
        if facts.fingerprint in records.by_fingerprint
    }
    histories: Histories = {mode: [] for mode in plan.modes}
    for run in itertools.product(plan.modes, plan.seeds):
        path = root / paths.training_folder(*run) / "history.csv"
        if path.exists():
            histories[run[0]].append(_add_epochs(_read_history(path), by_run.get(run)))
    cost_path = root / paths.COST
    cost = read_json(CostReport, cost_path) if cost_path.exists() else None
    return TrainingResults(histories, cost, by_run, records.no_record)


def _read_history(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        message = " ".join(str(error).split())
        raise DataError(
            f"{path}: {message}; expected one row per epoch; remove the file and train again (dvc "
            f"repro)"
        ) from None


def _add_epochs(history: pd.DataFrame, record: TrainingRecord | None) -> pd.DataFrame:
    """The history with the measurements of each epoch, where there is one for every row."""
    epochs = record.epochs if record else {}
    return history.assign(
        **{name: values for name, values in epochs.items() if len(values) == len(history)}
    )
