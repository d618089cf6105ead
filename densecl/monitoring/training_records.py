"""What MLflow knows of finished training runs and no file does: it varies with the machine."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from densecl.monitoring.mlflow_store import DURATION_METRIC, TRAINING_EXPERIMENT, import_mlflow

EPOCH_METRICS = ("images_per_second", "peak_memory_bytes")
NO_RECORD = (
    "no finished run of this training with its epochs in MLflow: it was made on another machine, "
    "logged to another store, or MLflow failed meanwhile (its output says so)"
)


@dataclass(frozen=True)
class TrainingRecord:
    """Measurements of one training run; `epochs` holds the columns of EPOCH_METRICS."""

    wall_seconds: float  # over all interruptions
    device: str
    epochs: dict[str, list[float]]

    @property
    def images_per_second(self) -> float:
        """Median over the epochs."""
        return median(self.epochs["images_per_second"])

    @property
    def peak_memory_bytes(self) -> int:
        """Of the training process: of the allocator on a GPU, of the whole process on a CPU."""
        return int(max(self.epochs["peak_memory_bytes"]))


class TrainingRecords(NamedTuple):
    """Records by fingerprint, and why others are missing."""

    by_fingerprint: dict[str, TrainingRecord]
    no_record: str


def read_training_records(fingerprints: Iterable[str]) -> TrainingRecords:
    """The records that MLflow has.

    A failing store must not cost the report: its error is the reason.
    """
    records: dict[str, TrainingRecord] = {}
    try:
        client = import_mlflow().MlflowClient()
        experiment = client.get_experiment_by_name(TRAINING_EXPERIMENT)
        for fingerprint in fingerprints:
            run = _find_finished_run(client, experiment, fingerprint) if experiment else None
            record = _read_record(client, run) if run is not None else None
            if record is not None:
                records[fingerprint] = record
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        return TrainingRecords(
            records, f"MLflow could not be read: {type(error).__name__}: {reason}"
        )
    return TrainingRecords(records, NO_RECORD)


def _find_finished_run(client: Any, experiment: Any, fingerprint: str) -> Any:
    """The latest run that trained to the end; None without one."""
    runs = client.search_runs(
        [experiment.experiment_id],
        f"tags.fingerprint = '{fingerprint}' and metrics.{DURATION_METRIC} > 0",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    return runs[0] if runs else None


def _read_record(client: Any, run: Any) -> TrainingRecord | None:
    """None where no epoch was logged: of a training that lost its store and was resumed."""
    columns = {}
    for name in EPOCH_METRICS:
        # A resumed run may have logged an epoch twice; the later value counts.
        by_epoch = {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)}
        if not by_epoch:
            return None
        columns[name] = [by_epoch[step] for step in sorted(by_epoch)]
    return TrainingRecord(
        run.data.metrics[DURATION_METRIC], run.data.tags.get("device", ""), columns
    )
