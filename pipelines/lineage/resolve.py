"""`python -m pipelines lineage X`: from a model, md5, run or version back to the images, and on to
report and verdict.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.config.params import load_params
from densecl.errors import DenseclError
from densecl.monitoring.mlflow_store import EXPERIMENT
from pipelines.lineage.chain import (
    Lineage,
    LineageBuilder,
    LineageNode,
    build_version_nodes,
    find_model,
)
from pipelines.lineage.render import render_text
from pipelines.registry import mlflow_client, registry
from pipelines.registry.mlflow_client import ALIASES, RegistryError
from pipelines.stages.dvc_history import (
    PLANNING,
    LockedFile,
    LockedStage,
    LockSnapshot,
    WorkspaceState,
    iter_snapshots,
)

EXPECTED = (
    "a path (models/dense/seed-0), an md5 as DVC writes it, an MLflow run id, a ZenML run id, "
    f"or a version of the registry (3, v3, {', '.join(ALIASES)})"
)
MD5_PATTERN = r"[0-9a-f]{32}(\.dir)?"
UUID_PATTERN = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@dataclass(frozen=True)
class ResolvedQuery:
    """What X was taken for, and where the chain is entered."""

    description: str
    record: LockSnapshot | None
    stages: tuple[LockedStage, ...] = ()
    version: str | None = None  # then only this one's verdict is shown


class QueryResolver:
    """Each way tries to find X in its own place; the store of MLflow is asked where it can know."""

    def __init__(self, name: str) -> None:
        self.name, self.workspace = name, WorkspaceState()
        self.notes: list[str] = []

    def resolve_query(self, query: str) -> ResolvedQuery:
        """DenseclError that says what X may be, where nothing is found."""
        if query in ALIASES or re.fullmatch(r"v?\d{1,9}", query):
            return self._find_version(query)
        ways = [
            (MD5_PATTERN, self._find_md5),
            (r"[0-9a-f]{32}", self._find_mlflow_run),
            (UUID_PATTERN, self._find_zenml_run),
            (r"(?s).*", self._find_path),
        ]
        for pattern, find in ways:
            if re.fullmatch(pattern, query) and (resolved := find(query)):
                return resolved
        raise DenseclError(f"{query}: nothing of that name is recorded here; expected {EXPECTED}")

    def _find_version(self, query: str) -> ResolvedQuery:
        number, tags = registry.resolve_version(self.name, query)
        return self._resolve_tags(f"version {number} of {self.name}", number, tags)

    def _resolve_tags(self, description: str, number: str, tags: dict[str, str]) -> ResolvedQuery:
        """The training that left the version's model, in whichever dvc.lock has it."""
        md5 = tags.get("dvc_md5", "")
        for record in iter_snapshots(md5, tags.get("git", "")):
            if md5 and (stages := record.find_by_md5(md5)):
                return ResolvedQuery(description, record, tuple(stages), number)
        self.notes.append(
            f"no dvc.lock, of the workspace or of a commit, records the model's md5 "
            f"{md5 or '(none is written on the version)'}: "
            "how it was trained is known from the version's tags only"
        )
        return ResolvedQuery(description, None, version=number)

    def _find_md5(self, md5: str) -> ResolvedQuery | None:
        for record in iter_snapshots(md5):
            stages = (
                record.find_by_md5(md5)
                or record.find_by_md5(f"{md5}.dir")
                or self._find_containing(record, md5)
            )
            if stages:
                return ResolvedQuery(f"md5 {md5}", record, tuple(stages))
        return self._find_by_tag("dvc_md5", md5, f"md5 {md5}")

    def _find_containing(self, record: LockSnapshot, md5: str) -> list[LockedStage]:
        """The stages that left a folder with a file of that md5."""
        return [
            stage
            for stage in record.stages.values()
            if any(
                md5 in self.workspace.list_folder(out).values()
                for out in stage.writes
                if out.md5.endswith(".dir")
            )
        ]

    def _find_mlflow_run(self, run_id: str) -> ResolvedQuery | None:
        if resolved := self._find_by_tag("mlflow_run", run_id, f"MLflow run {run_id}"):
            return resolved
        tags = self._get_run_tags(run_id)
        if tags is None:
            return None
        fingerprint = tags.get("fingerprint", "")
        for record in iter_snapshots():
            for stage in record.stages.values():
                model = find_model(stage)
                if model and fingerprint and fingerprint == self.read_fingerprint(model):
                    return ResolvedQuery(f"MLflow run {run_id}", record, (stage,))
        raise DenseclError(
            f"{run_id}: an MLflow run of fingerprint "
            f"{fingerprint or '(none: no training of the pipeline)'}, "
            f"but no model that {paths.PARAMS.with_name('dvc.lock')} records has it; expected "
            f"{EXPECTED}"
        )

    def _find_zenml_run(self, run_id: str) -> ResolvedQuery | None:
        if resolved := self._find_by_tag("zenml_run", run_id, f"ZenML run {run_id}"):
            return resolved
        record = _load_zenml_run(run_id)
        return (
            ResolvedQuery(f"ZenML run {run_id}", record, tuple(record.stages.values()))
            if record
            else None
        )

    def _find_path(self, query: str) -> ResolvedQuery | None:
        path = os.path.relpath(query or ".")
        if Path(path).is_relative_to(paths.model_folder(paths.CHAMPION, 0)):
            return self._find_version("champion")
        for record in iter_snapshots():
            for direction in (
                "writes",
                "reads",
            ):  # a plan, and images that no stage made, are known by who read them
                stages = [
                    stage
                    for stage in record.stages.values()
                    if stage.name != PLANNING
                    and any(self._has_path(file, path) for file in getattr(stage, direction))
                ]
                if stages:
                    return ResolvedQuery(path, record, tuple(stages))
        return None

    def _has_path(self, file: LockedFile, path: str) -> bool:
        subpath = path.removeprefix(f"{file.path}/")
        return path == file.path or (
            subpath != path and (Path(path).exists() or subpath in self.workspace.list_folder(file))
        )

    def _find_by_tag(self, tag: str, value: str, description: str) -> ResolvedQuery | None:
        for number, tags in reversed(self.list_versions().items()):
            if tags.get(tag) == value or (tag == "dvc_md5" and tags.get(tag) == f"{value}.dir"):
                return self._resolve_tags(
                    f"{description}, of version {number} of {self.name}", number, tags
                )
        return None

    def list_versions(self) -> dict[str, dict[str, str]]:
        """Versions of the registry; a store that does not answer is a note, not the end."""
        try:
            return registry.list_version_tags(self.name)
        except RegistryError as error:
            if str(error) not in self.notes:
                self.notes.append(str(error))
            return {}

    def _get_run_tags(self, run_id: str) -> dict[str, str] | None:
        try:
            return mlflow_client.get_run_tags(run_id)
        except RegistryError as error:
            self.notes.append(str(error))
            return None

    def read_fingerprint(self, model: LockedFile) -> str:
        """Of the recorded model, from its config.json; "" where that is no longer there."""
        digest = self.workspace.list_folder(model).get("config.json")
        config = (
            self.workspace.read_text(LockedFile(f"{model.path}/config.json", digest))
            if digest
            else None
        )
        return str(json.loads(config).get("fingerprint", "")) if config else ""

    def list_runs(self, fingerprint: str) -> list[tuple[str, dict[str, str]]]:
        """MLflow runs of a training, the newest first."""
        try:
            return (
                mlflow_client.find_training_runs(EXPERIMENT, fingerprint)
                if re.fullmatch(r"[0-9a-f]+", fingerprint)
                else []
            )
        except RegistryError as error:
            self.notes.append(str(error))
            return []


def build_lineage(query: str) -> Lineage:
    """The chain that X is a link of; DenseclError where nothing is recorded of X."""
    resolver = QueryResolver(load_params(paths.PARAMS).retraining.registry)
    resolved = resolver.resolve_query(query)
    builder = LineageBuilder(resolved.record or LockSnapshot("none", "", {}), resolver.workspace)
    builder.add_stages(resolved.stages)
    versions = resolver.list_versions()
    for stage in list(builder.record.stages.values()):
        if stage.name in builder.nodes and (model := find_model(stage)):
            _add_training_run(builder, resolver, stage, model)
            _add_versions(
                builder,
                resolver.name,
                stage.name,
                {n: t for n, t in versions.items() if _is_version_of(n, t, model, resolved)},
            )
    if resolved.version and resolved.record is None:
        _add_training_from_tags(builder, resolved.version, versions[resolved.version])
        _add_versions(
            builder,
            resolver.name,
            "train (from tags)",
            {resolved.version: versions[resolved.version]},
        )
    return builder.to_lineage(query, resolved.description, resolver.notes)


def main(x: str) -> None:
    """Print the chain of X with its Mermaid source."""
    print(render_text(build_lineage(x)))


def _is_version_of(
    number: str, tags: dict[str, str], model: LockedFile, resolved: ResolvedQuery
) -> bool:
    return tags.get("dvc_md5") == model.md5 and resolved.version in (None, number)


def _add_training_run(
    builder: LineageBuilder, resolver: QueryResolver, stage: LockedStage, model: LockedFile
) -> None:
    """MLflow's runs of the training, as facts of its link."""
    node, fingerprint = builder.nodes[stage.name], resolver.read_fingerprint(model)
    if not fingerprint:
        note = (
            f"{model.path}: its config.json is in neither the workspace "
            f"nor DVC's cache: no MLflow run can be looked up"
        )
        builder.nodes[stage.name] = replace(node, notes=(*node.notes, note))
        return
    runs = resolver.list_runs(fingerprint)
    facts = [
        ("fingerprint", fingerprint),
        ("mlflow_run", runs[0][0] if runs else "none with this fingerprint"),
    ]
    if runs and (commit := runs[0][1].get("mlflow.source.git.commit")):
        facts.append(("trained at git", commit))
    builder.nodes[stage.name] = replace(node, facts=(*node.facts, *facts))


def _add_versions(
    builder: LineageBuilder, name: str, model: str, versions: dict[str, dict[str, str]]
) -> None:
    cells = [
        n
        for n, node in builder.nodes.items()
        if node.kind == "evaluation" and (model, n) in builder.edges
    ]
    for number, tags in versions.items():
        gate, version = build_version_nodes(name, number, tags)
        builder.nodes |= {gate.name: gate, version.name: version}
        builder.edges |= dict.fromkeys(
            [*((cell, gate.name) for cell in cells or [model]), (gate.name, version.name)]
        )


def _add_training_from_tags(builder: LineageBuilder, number: str, tags: dict[str, str]) -> None:
    """What a version's own tags say of its training, where no dvc.lock does."""
    reads = tuple(
        LockedFile(key.removeprefix("md5 "), md5)
        for key, md5 in tags.items()
        if key.startswith("md5 ")
    )
    facts = tuple((key, tags.get(key) or "none") for key in ("git", "fingerprint", "mlflow_run"))
    writes = (
        LockedFile(
            paths.model_folder(tags["mode"], int(tags["seed"])).as_posix(), tags.get("dvc_md5", "")
        ),
    )
    note = f"params, images and evaluation of version {number}: no dvc.lock records them"
    builder.nodes["train (from tags)"] = LineageNode(
        "train (from tags)", reads, writes, facts, (note,)
    )


def _load_zenml_run(run_id: str) -> LockSnapshot | None:
    """The DVC stages that the steps of a run brought up to date; None where ZenML knows no such
    run.
    """
    if not (paths.ZENML_STORE.exists() or "ZENML_CONFIG_PATH" in os.environ):
        return None
    from pipelines.runtime import zenml_env

    try:
        steps = (
            zenml_env.get_client()
            .get_pipeline_run(run_id, allow_name_prefix_match=False)
            .steps.values()
        )
    except KeyError:
        return None
    try:
        references: list[Any] = [
            output.load() for step in steps for output in step.outputs.get("reference", ())
        ]
    except (
        Exception
    ) as error:  # of whatever store holds them, or of code that wrote them and is gone
        raise DenseclError(
            f"{run_id}: a run of ZenML, but what its steps returned cannot be read: {error}"
        ) from None
    commits = [step.run_metadata["git"] for step in steps if "git" in step.run_metadata]
    stages = {
        r.stage: LockedStage(r.stage, _to_files(r.deps.items()), _to_files(r.outs.items()))
        for r in references
    }
    return (
        LockSnapshot(f"the steps of ZenML run {run_id}", str(commits[0]) if commits else "", stages)
        if stages
        else None
    )


def _to_files(md5_by_path: Iterable[tuple[str, str]]) -> tuple[LockedFile, ...]:
    return tuple(LockedFile(path, md5) for path, md5 in md5_by_path)
