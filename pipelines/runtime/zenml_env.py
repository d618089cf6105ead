"""Environment variables that must be set before ZenML is imported."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from densecl import paths
from densecl.artifacts import write_text
from densecl.errors import DenseclError
from pipelines.runtime.own_python import put_python_first

if TYPE_CHECKING:
    from zenml.client import Client

ENVIRONMENT_DEFAULTS = {
    "ZENML_ANALYTICS_OPT_IN": "false",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "AUTO_OPEN_DASHBOARD": "false",
    "ZENML_LOGGING_VERBOSITY": "WARN",
    "ZENML_DISABLE_STEP_LOGS_STORAGE": "true",  # DVC's stages write to the terminal themselves
}
# Loggers that repeat raised errors with SQL and tracebacks.
DUPLICATE_LOGGERS = ("zenml.orchestrators.step_launcher", "zenml.log_stores")
STORE_PATH = "local_stores/default_zen_store/zenml.db"  # ZenML's own, below its folder


def configure_environment() -> None:
    """Keep ZenML's store inside the project, without telemetry and with warnings only; existing
    settings win.
    """
    put_python_first()
    os.environ.setdefault("ZENML_CONFIG_PATH", str(paths.ZENML_STORE.absolute()))
    _reset_moved_store(Path(os.environ["ZENML_CONFIG_PATH"]))
    for name, value in ENVIRONMENT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    for name in DUPLICATE_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def get_client() -> "Client":
    """ZenML's client. Source paths are relative to the project root, so that every process of the
    project can load step outputs.
    """
    configure_environment()
    from zenml.client import Client
    from zenml.utils import source_utils

    source_utils.set_custom_source_root(str(Path.cwd()))
    return Client()


def _reset_moved_store(folder: Path) -> None:
    """Reset the store after the project was moved or copied: ZenML stores its absolute path, and
    would otherwise use the old location.
    """
    file = folder / "config.yaml"
    if not file.exists():
        return
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        url = config.get("store", {}).get("url", "")
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError):
        raise DenseclError(
            f"{file}: not readable as a YAML mapping; remove it: ZenML writes a new one"
        ) from None
    if url.endswith(f"{folder.name}/{STORE_PATH}") and url != f"sqlite:///{folder / STORE_PATH}":
        del config["store"]
        write_text(file, yaml.safe_dump(config))
