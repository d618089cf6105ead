"""Before a job is submitted: what its stages read goes to the DVC remote, and what else it needs is
collected.
"""

import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import networkx

from densecl import paths
from densecl.artifacts import write_text
from densecl.config.cluster_params import ClusterParams
from densecl.errors import DenseclError
from densecl.runtime.git import run_git
from pipelines.engines.job import JobSpec

if TYPE_CHECKING:
    from dvc.repo import Repo

    from pipelines.stages.dvc_graph import StageGraph


class Publication(NamedTuple):
    """What a job is submitted with."""

    key: str  # of the first stage and all that it reads: DVC's key of its runs
    spec: JobSpec


def publish_inputs(
    graph: "StageGraph", names: Sequence[str], commit: str, settings: ClusterParams
) -> Publication:
    """Push what the stages read, and collect the rest; DenseclError where the remote fails."""
    from dvc.stage.cache import _can_hash, _get_stage_hash

    from pipelines.stages.transfer import list_inputs, push_outs

    first = graph.stages[names[0]]
    with graph.hold_lock():
        first.save_deps()
        if not _can_hash(first):
            raise DenseclError(
                f"{names[0]}: found a stage whose runs DVC does not keep, expected dependencies "
                f"and outs inside the project; run it here (cluster.kinds)"
            )
        key = _get_stage_hash(first)
    push_outs(graph, list_inputs(graph, names), names[0])
    create_tracking_store()
    files = {paths.DVC_LOCK.as_posix(): select_lock_entries(graph, names)}
    return Publication(key, build_spec(graph.repo, names, commit, files, settings))


def build_spec(
    repo: "Repo",
    names: Sequence[str],
    commit: str,
    files: Mapping[str, str],
    settings: ClusterParams,
    results: Sequence[Path] = (),
) -> JobSpec:
    """What a job needs beside the commit's files: `files` by their paths, in UTF-8."""
    if not paths.CLUSTER_TOKEN.exists():
        write_text(paths.CLUSTER_TOKEN, uuid.uuid4().hex)
    return JobSpec(
        names=tuple(names),
        commit=commit,
        prefix=run_git("rev-parse", "--show-prefix").strip(),
        files={name: text for name, text in files.items() if text},
        config=_format_remote(repo),
        project=str(Path.cwd()),
        token=paths.CLUSTER_TOKEN.read_text(encoding="utf-8"),
        token_file=paths.CLUSTER_TOKEN.as_posix(),
        log=str(paths.stage_log(names[0]).absolute()),
        progress=str(paths.stage_progress_file(names[0]).absolute()),
        scratch=settings.scratch,
        checkpoints=settings.checkpoints,
        results=tuple(path.as_posix() for path in results),
    )


def create_tracking_store() -> None:
    """Make MLflow's default store and experiment here, not in the clone of whichever job is first:
    it holds absolute paths, and two jobs that make it at once break it.
    """
    from densecl.monitoring.mlflow_store import TRACKING_URI, import_mlflow, select_experiment

    store = Path(TRACKING_URI.removeprefix("sqlite:///"))
    if store.exists() or "MLFLOW_TRACKING_URI" in os.environ:
        return
    try:
        select_experiment(import_mlflow())
    except Exception as error:  # jobs then train without it, and say so
        print(f"warning: MLflow: {' '.join(str(error).split())}", file=sys.stderr, flush=True)


def get_remote_name(repo: "Repo") -> str:
    """Name of the default remote; DenseclError if there is none."""
    if name := repo.config["core"].get("remote"):
        return str(name)
    raise DenseclError(
        "DVC: found no default remote, by which files travel to other machines; `dvc remote add "
        "--default store s3://bucket/project`, or a folder that all of them see"
    )


def _format_remote(repo: "Repo") -> str:
    """The default remote as a file of DVC's settings, with keys of .dvc/config.local."""
    from configobj import ConfigObj

    name = get_remote_name(repo)
    remote = dict(repo.config["remote"][name])
    if "://" not in (url := str(remote["url"])):
        remote["url"] = str(Path(url).absolute())
    config = ConfigObj({"core": {"remote": name}, f'remote "{name}"': remote})
    return "\n".join(config.write()) + "\n"


def select_lock_entries(graph: "StageGraph", names: Sequence[str]) -> str:
    """dvc.lock with the entries of these stages and those before them."""
    from dvc.utils.serialize import dumps_yaml, load_yaml

    if not paths.DVC_LOCK.exists():
        return ""
    upstream = networkx.DiGraph(graph.upstream)
    wanted = set(names).union(*(networkx.descendants(upstream, name) for name in names))
    lock = load_yaml(paths.DVC_LOCK)
    lock["stages"] = {n: entry for n, entry in lock["stages"].items() if n in wanted}
    text: str = dumps_yaml(lock)
    return text
