"""Other tools that receive a training's epochs beside MLflow, by their names in LOGGERS_ENV."""

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from densecl import paths
from densecl.errors import DenseclError

# Environment variable: `tensorboard`, `wandb` or both with a comma. Each is an extra.
LOGGERS_ENV = "DENSECL_LOGGERS"


class Logger(Protocol):
    """Receives the epochs of one training; a resumed one continues its record."""

    def log_metrics(self, metrics: Mapping[str, float], epoch: int) -> None: ...

    def close(self, status: int) -> None:
        """`status` is 0 after the last epoch, else the training resumes or failed."""


class TensorBoardLogger:
    """Event files in tensorboard/<mode>-<seed>/<fingerprint>: one line per training."""

    def __init__(self, name: str, fingerprint: str, params: Mapping[str, Any]) -> None:
        # mypy knows its types only where the extra is installed.
        tensorboard: Any = importlib.import_module("torch.utils.tensorboard")
        self.writer = tensorboard.SummaryWriter(str(paths.TENSORBOARD / name / fingerprint))
        table = "\n".join(f"| {key} | {value} |" for key, value in params.items())
        text = f"| param | value |\n| --- | --- |\n| fingerprint | {fingerprint} |\n{table}"
        self.writer.add_text("params", text)

    def log_metrics(self, metrics: Mapping[str, float], epoch: int) -> None:
        for key, value in metrics.items():
            self.writer.add_scalar(key, value, epoch)
        self.writer.flush()

    def close(self, status: int) -> None:  # noqa: ARG002
        self.writer.close()


class WandbLogger:
    """A run of Weights & Biases in the project `densecl`; WANDB_MODE=offline keeps it in wandb/."""

    def __init__(self, name: str, fingerprint: str, params: Mapping[str, Any]) -> None:
        import wandb

        self.run = wandb.init(
            project="densecl",
            name=name,
            id=fingerprint,
            resume="allow",
            config=dict(params) | {"fingerprint": fingerprint},
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log_metrics(self, metrics: Mapping[str, float], epoch: int) -> None:
        self.run.log(dict(metrics), step=epoch)

    def close(self, status: int) -> None:
        self.run.finish(exit_code=status)


LOGGERS: dict[str, type[TensorBoardLogger] | type[WandbLogger]] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
}


def start_loggers(
    name: str,
    fingerprint: str,
    params: Mapping[str, Any],
    warn: Callable[[str, Exception], object],
) -> list[Logger]:
    """The loggers that LOGGERS_ENV names; DenseclError for an unknown one, or one that is not
    installed. One that fails to start, as W&B without a login, is passed to `warn`.
    """
    names = [entry.strip() for entry in os.environ.get(LOGGERS_ENV, "").split(",")]
    loggers: list[Logger] = []
    for entry in filter(None, names):
        if entry not in LOGGERS:
            raise DenseclError(f"{LOGGERS_ENV}: found {entry!r}, expected {' or '.join(LOGGERS)}")
        try:
            loggers.append(LOGGERS[entry](name, fingerprint, params))
        except ImportError:
            raise DenseclError(
                f"{LOGGERS_ENV}: {entry} is not installed: pip install 'densecl[{entry}]'"
            ) from None
        except Exception as error:  # each tool has its own
            warn(LOGGERS[entry].__name__, error)
    return loggers
