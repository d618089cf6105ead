"""`python -m pipelines lineage X`: the chain of a model, md5, run or version, from images to
verdict.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from densecl import paths
from densecl.analysis.dvc_lock import LockedFile, LockedStage
from densecl.config.params import load_params
from densecl.errors import DenseclError
from pipelines.lineage.chain import Lineage
from pipelines.lineage.render import render_text
from pipelines.registry import mlflow_client, registry
from pipelines.registry.mlflow_client import ALIASES
from pipelines.stages.dvc_history import LockSnapshot, WorkspaceState, iter_snapshots

EXPECTED = (
    "a path (models/dense/seed-0), an md5 as DVC writes it, an MLflow run id, a ZenML run id, "
    f"or a version of the registry (3, v3, {', '.join(ALIASES)})"
)
MD5_PATTERN = r"[0-9a-f]{32}(\.dir)?"
UUID_PATTERN = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
COMMIT_TAG = "mlflow.source.git.commit"  # MLflow's own, of a run
T = TypeVar("T")


class ResolvedQuery(NamedTuple):
    """The interpretation of X, and the stages at which the chain starts."""

    description: str
    snapshot: LockSnapshot
    stages: list[LockedStage]
    version: str | None = None  # then only this one's verdict is shown


class QueryResolver:
    """Interprets a query; each method searches one kind: path, md5, run or version."""

    def __init__(self, name: str) -> None:
        self.name, self.workspace = name, WorkspaceState()
        self.notes: list[str] = []
        self.versions = self._ask_store(lambda: registry.list_version_tags(name)) or {}

    def resolve_query(self, query: str) -> ResolvedQuery:
        """Interpret a query; DenseclError lists the kinds of identifiers if it is not found."""
        if query in ALIASES or re.fullmatch(r"v?\d{1,9}", query):
            return self._find_version(query)
        ways = [
            (MD5_PATTERN, self._find_md5),
            (f"{MD5_PATTERN}|{UUID_PATTERN}", self._find_tag),
            (r"[0-9a-f]{32}", self._find_mlflow_run),
            (UUID_PATTERN, self._find_zenml_run),
            (r"(?s).*", self._find_path),
        ]
        for pattern, find in ways:
            if re.fullmatch(pattern, query) and (resolved := find(query)):
                return resolved
        raise DenseclError(f"{query}: nothing of that name is recorded here; expected {EXPECTED}")

    def list_runs(self, fingerprint: str) -> list[tuple[str, dict[str, str]]]:
        """MLflow runs of a training run, newest first."""
        return self._ask_store(lambda: mlflow_client.find_training_runs(fingerprint)) or []

    def _ask_store(self, ask: Callable[[], T]) -> T | None:
        """Query a store; if it does not respond, add a note and continue, since dvc.lock has most
        of the chain.
        """
        try:
            return ask()
        except DenseclError as error:
            if str(error) not in self.notes:
                self.notes.append(str(error))
            return None

    def _find_stages(
        self,
        description: str,
        matches: Callable[[LockedFile], object],
        md5: str = "",
        revision: str = "",
    ) -> ResolvedQuery | None:
        """The stages that wrote a matching file, or else those that read one."""
        for snapshot in iter_snapshots(md5, revision):
            for direction in ("writes", "reads"):
                stages = [
                    stage
                    for stage in snapshot.stages.values()
                    if any(map(matches, getattr(stage, direction)))
                ]
                if stages:
                    return ResolvedQuery(description, snapshot, stages)
        return None

    def _find_version(self, query: str) -> ResolvedQuery:
        """The training stage that wrote the version's model, from any dvc.lock, or else from the
        version's tags.
        """
        number, tags = registry.resolve_version(self.name, query)
        description, md5 = f"version {number} of {self.name}", tags.get("dvc_md5") or "none"
        found = self._find_stages(
            description, lambda file: file.md5 == md5, md5, tags.get("git", "")
        )
        if found is None:
            self.notes.append(
                f"no dvc.lock, of the workspace or of a commit, records the model's md5 {md5}: "
                f"how it was trained is known from the version's tags only"
            )
            snapshot = _read_tags(number, tags)
            found = ResolvedQuery(description, snapshot, [*snapshot.stages.values()])
        return found._replace(version=number)

    def _find_md5(self, md5: str) -> ResolvedQuery | None:
        def matches(file: LockedFile) -> bool:
            return (
                file.md5 in (md5, f"{md5}.dir") or md5 in self.workspace.list_folder(file).values()
            )

        return self._find_stages(f"md5 {md5}", matches, md5)

    def _find_tag(self, query: str) -> ResolvedQuery | None:
        """The newest version that has the md5 or the run id among its tags."""
        for number, tags in reversed(self.versions.items()):
            names = [tags.get(tag) for tag in ("dvc_md5", "mlflow_run", "zenml_run")]
            if query in names or f"{query}.dir" in names:
                return self._find_version(number)
        return None

    def _find_mlflow_run(self, run_id: str) -> ResolvedQuery | None:
        """The training stage with the run's fingerprint."""
        tags = mlflow_client.get_run_tags(run_id)
        if tags is None or "fingerprint" not in tags:
            return None
        return self._find_stages(
            f"MLflow run {run_id}",
            lambda file: is_model(file) and self.read_fingerprint(file) == tags["fingerprint"],
        )

    def _find_zenml_run(self, run_id: str) -> ResolvedQuery | None:
        """The training stages that wrote the models of a run."""
        models = list_run_models(run_id)
        return (
            self._find_stages(f"ZenML run {run_id}", lambda file: file.md5 in models, models[0])
            if models
            else None
        )

    def _find_path(self, query: str) -> ResolvedQuery | None:
        path = os.path.relpath(query or ".")
        for model in paths.REGISTERED:
            if Path(path).is_relative_to(paths.model_folder(model, 0)):
                return self._find_version(model)

        def matches(file: LockedFile) -> bool:
            inside = path.removeprefix(f"{file.path}/")
            return path == file.path or (
                inside != path
                and (Path(path).exists() or inside in self.workspace.list_folder(file))
            )

        return self._find_stages(path, matches)

    def read_fingerprint(self, model: LockedFile) -> str:
        """Fingerprint in the config.json of a recorded model; "" if the file is gone."""
        md5 = self.workspace.list_folder(model).get("config.json", "")
        config = self.workspace.read_text(LockedFile(f"{model.path}/config.json", md5))
        return str(json.loads(config).get("fingerprint", "")) if config else ""


def build_lineage(query: str) -> Lineage:
    """The lineage that `query` belongs to; DenseclError if it is not recorded."""
    resolver = QueryResolver(load_params(paths.PARAMS).retraining.registry)
    found = resolver.resolve_query(query)
    lineage = Lineage(found.description, found.snapshot, resolver.workspace, resolver.notes)
    lineage.add_stages(found.stages)
    for node in lineage.nodes:
        for model in filter(is_model, node.writes):
            fingerprint = resolver.read_fingerprint(model)
            runs = resolver.list_runs(fingerprint)
            node.facts += [
                ("fingerprint", fingerprint or "not known: no config.json is left"),
                ("mlflow_run", runs[0][0] if runs else "none with this fingerprint"),
                ("trained at git", runs[0][1].get(COMMIT_TAG, "none") if runs else "not known"),
            ]
            for number, tags in resolver.versions.items():
                if tags.get("dvc_md5") == model.md5 and found.version in (None, number):
                    lineage.add_version(resolver.name, number, tags, node.name)
    return lineage


def main(x: str) -> None:
    """Print the chain of X with its Mermaid source."""
    print(render_text(build_lineage(x)))


def is_model(file: LockedFile) -> bool:
    return file.path.startswith(f"{paths.MODELS.as_posix()}/")


def list_run_models(run_id: str) -> list[str]:
    """md5 of the models that a ZenML run trained; empty if ZenML does not know the run."""
    if not (paths.ZENML_STORE.exists() or "ZENML_CONFIG_PATH" in os.environ):
        return []
    from pipelines.runtime import zenml_env

    client = zenml_env.get_client()
    try:
        steps = client.get_pipeline_run(run_id, allow_name_prefix_match=False).steps.values()
    except KeyError:
        return []
    outs: list[dict[str, str]] = [step.run_metadata.get("md5", {}) for step in steps]  # type: ignore[misc]
    files = [LockedFile(*out) for md5s in outs for out in md5s.items()]
    return [file.md5 for file in files if is_model(file)]


def _read_tags(number: str, tags: Mapping[str, str]) -> LockSnapshot:
    """What a version's tags state about its training, if no dvc.lock has it."""
    mode, seed = tags["mode"], int(tags["seed"])
    reads = [
        LockedFile(key.removeprefix("md5 "), md5)
        for key, md5 in tags.items()
        if key.startswith("md5 ")
    ]
    model = LockedFile(paths.model_folder(mode, seed).as_posix(), tags.get("dvc_md5", ""))
    stage = LockedStage(f"train@{mode}-{seed}", tuple(reads), (model,))
    return LockSnapshot(f"the tags of version {number}", tags.get("git", ""), {stage.name: stage})
