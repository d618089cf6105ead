"""An orchestrator that keeps schedules, as far as a client sees it: it writes down what it is
handed.
"""

from __future__ import annotations

import json
from pathlib import Path

from zenml.orchestrators import BaseOrchestrator, BaseOrchestratorConfig, BaseOrchestratorFlavor

HANDED = Path("handed.json")


class Config(BaseOrchestratorConfig):
    @property
    def is_schedulable(self) -> bool:
        return True

    @property
    def is_local(self) -> bool:
        return True


class Orchestrator(BaseOrchestrator):
    def get_orchestrator_run_id(self) -> str:
        return "none"

    def submit_dynamic_pipeline(self, snapshot, stack, environment, placeholder_run=None):
        HANDED.write_text(
            json.dumps(
                {
                    "pipeline": snapshot.pipeline.name,
                    "cron": snapshot.schedule.cron_expression,
                    "run": placeholder_run and str(placeholder_run.id),
                }
            )
        )


class Flavor(BaseOrchestratorFlavor):
    name = "schedulable"
    config_class = Config
    implementation_class = Orchestrator
