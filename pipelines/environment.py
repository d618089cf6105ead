"""What must stand in the environment before ZenML is imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from densecl import layout

SWITCHES = {
    "ZENML_ANALYTICS_OPT_IN": "false", "DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false", "AUTO_OPEN_DASHBOARD": "false",
    "ZENML_LOGGING_VERBOSITY": "WARN", "ZENML_DISABLE_STEP_LOGS_STORAGE": "true",  # DVC's stages write to the terminal themselves
}  # fmt: skip


def prepare() -> None:
    """ZenML's store inside the project, telemetry off, its own lines down to warnings; what is set already stays.

    The `python` of dvc.yaml's commands is this one, also where its environment is not activated.
    """
    here = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", "").split(os.pathsep)
    if path[0] != here:
        os.environ["PATH"] = os.pathsep.join([here, *path])
    os.environ.setdefault("ZENML_CONFIG_PATH", str(layout.ZENML.absolute()))
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
