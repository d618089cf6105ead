"""The comparison as a ZenML pipeline: `dvc repro` with one tracked step per stage."""

from typing import Any

from zenml import pipeline

from pipelines.stages.zenml_steps import add_stages, get_graph


@pipeline(enable_cache=False, dynamic=True)
def comparison() -> None:
    references: dict[str, Any] = {}
    add_stages(list(get_graph().stages), references)
