"""The record of a retraining that a kill ended after its model was judged and registered: written
at the next start.
"""

from __future__ import annotations

from densecl import paths
from densecl.config.params import Params
from densecl.errors import DenseclError
from pipelines.outcome import csv_log
from pipelines.registry import registry
from pipelines.schemas import RetrainingRecord
from pipelines.stages.runs import get_start_time


def find_unrecorded_run(params: Params) -> RetrainingRecord | None:
    """Of the newest version, where no line records it, and its run is one of this project's."""
    name = params.retraining.registry
    try:
        number, tags = next(reversed(registry.list_version_tags(name).items()), ("", {}))
    except DenseclError:  # the step that needs the registry tells it
        return None
    records = csv_log.read_records(paths.RETRAINING_LOG, RetrainingRecord)
    if not number or number in {record.version for record in records}:
        return None
    promoted, champion = tags["verdict"] == "promoted", registry.get_champion(name).version
    if promoted and champion != number:  # the kill came before the alias moved: it is judged again
        return None
    started = get_start_time(tags.get("zenml_run", ""))
    if started is None:  # a registry that was copied here
        return None
    return RetrainingRecord(
        started=started.isoformat(timespec="seconds"),
        seconds=0,
        outcome="promoted" if promoted else "rejected",
        said=f"{tags['said']} (killed before this line was written; how long it took is not known)",
        version=number,
        champion=champion,
        zenml_run=tags["zenml_run"],
    )
