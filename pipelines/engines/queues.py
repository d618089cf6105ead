"""The queue of an engine's name."""

from densecl.config.cluster_params import ClusterParams, EngineName
from densecl.errors import DenseclError
from pipelines.engines.executor import JobQueue


def open_queue(engine: EngineName, settings: ClusterParams) -> JobQueue | None:
    """The queue of a cluster; None for this machine. DenseclError if its package is missing."""
    if engine == "local":
        return None
    try:
        if engine == "slurm":
            from pipelines.engines.slurm import SlurmQueue

            return SlurmQueue(settings)
        from pipelines.engines.ray import RayQueue

        return RayQueue(settings)
    except ModuleNotFoundError as error:
        raise DenseclError(
            f"engine {engine}: found no package {error.name}, expected the extra `{engine}`: "
            f"`make extras`, or `pip install --require-hashes -r requirements-extras.lock`"
        ) from None
