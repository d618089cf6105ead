"""A schedule handed to ZenML, where the active stack's orchestrator keeps schedules itself
(Kubernetes, Airflow, ...).
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import tzinfo
from pathlib import Path

from densecl.errors import EXIT_RETRY, DenseclError, RetryLater
from densecl.runtime import cli
from pipelines.runtime import zenml_env
from pipelines.runtime.error_translation import translate_errors

NAME = "densecl-retraining"
YES, NO = 10, 11  # exit statuses of `python -m pipelines.handover`, which no crash has


def wanted() -> bool:
    """Does the active stack's orchestrator keep schedules? The local one, without ZenML being asked
    where nobody set up another.
    """
    zenml_env.configure_environment()
    elsewhere = {"ZENML_STORE_URL", "ZENML_ACTIVE_STACK_ID"} & set(os.environ)
    if not elsewhere and not Path(os.environ["ZENML_CONFIG_PATH"], "config.yaml").exists():
        return False
    # In a process of its own: a scheduler on the local stack would keep ZenML in memory for weeks.
    asked = subprocess.run(
        [sys.executable, "-m", "pipelines.handover"], check=False, stdout=subprocess.DEVNULL
    )
    if asked.returncode not in {YES, NO}:
        kind = RetryLater if asked.returncode == EXIT_RETRY else DenseclError
        raise kind(
            "ZenML could not say what its active stack is (see above); `zenml stack describe` "
            "asks the same"
        )
    return asked.returncode == YES


def hand_over(cron: str, where: tzinfo) -> None:
    """Register the schedule with the orchestrator, once; DenseclError for what it cannot keep."""
    if len(cron.split()) != 5:
        raise DenseclError(
            f"--cron: found {cron!r}; the orchestrator of the active ZenML stack knows five "
            f"fields, no seconds"
        )
    client = zenml_env.get_client()
    from zenml.config.schedule import Schedule

    from pipelines.retraining import retraining

    stack = client.active_stack
    known = client.list_schedules(name=NAME).items
    if known:
        raise DenseclError(
            f"the stack {stack.name} has the schedule {NAME} already ({known[0].cron_expression}); "
            f"`zenml pipeline schedule delete {NAME}` removes it"
        )
    retraining.with_options(schedule=Schedule(name=NAME, cron_expression=cron))()
    print(
        f"{NAME}: {cron} handed to the orchestrator of stack {stack.name}, which reads it in its "
        f"own time zone (not {where})"
    )


def answer() -> int:
    """YES or NO, from ZenML itself; another status, and a line, where it cannot say."""
    try:
        with translate_errors():
            return (
                YES
                if zenml_env.get_client().active_stack.orchestrator.config.is_schedulable
                else NO
            )
    except DenseclError as error:
        cli.print_error(str(error))
        return error.status


if __name__ == "__main__":
    sys.exit(answer())
