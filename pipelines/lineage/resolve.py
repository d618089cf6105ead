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
from densecl.artifacts import write_text
from densecl.config.params import load_params
from densecl.errors import DenseclError
from densecl.monitoring.mlflow_store import EXPERIMENT
from pipelines.lineage.chain import Builder, Chain, Link, model_of, version_links
from pipelines.lineage.render import page, text
from pipelines.registry import mlflow_client, registry
from pipelines.registry.mlflow_client import ALIASES, RegistryError
from pipelines.stages.dvc_history import PLANNING, File, Record, Stage, Workspace, records

MAY_BE = (
    "a path (models/dense/seed-0), an md5 as DVC writes it, an MLflow run id, a ZenML run id, "
    f"or a version of the registry (3, v3, {', '.join(ALIASES)})"
)
MD5 = r"[0-9a-f]{32}(\.dir)?"
ZENML = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@dataclass(frozen=True)
class Found:
    """What X was taken for, and where the chain is entered."""

    what: str
    record: Record | None
    stages: tuple[Stage, ...] = ()
    version: str | None = None  # then only this one's verdict is shown


class Resolver:
    """Each way tries to find X in its own place; the store of MLflow is asked where it can know."""

    def __init__(self, name: str) -> None:
        self.name, self.workspace = name, Workspace()
        self.notes: list[str] = []

    def find(self, x: str) -> Found:
        """DenseclError that says what X may be, where nothing is found."""
        if x in ALIASES or re.fullmatch(r"v?\d{1,9}", x):
            return self._version(x)
        ways = [
            (MD5, self._md5),
            (r"[0-9a-f]{32}", self._mlflow_run),
            (ZENML, self._zenml_run),
            (r"(?s).*", self._path),
        ]
        for pattern, way in ways:
            if re.fullmatch(pattern, x) and (found := way(x)):
                return found
        raise DenseclError(f"{x}: nothing of that name is recorded here; expected {MAY_BE}")

    def _version(self, x: str) -> Found:
        number, tags = registry.numbered(self.name, x)
        return self._tagged(f"version {number} of {self.name}", number, tags)

    def _tagged(self, what: str, number: str, tags: dict[str, str]) -> Found:
        """The training that left the version's model, in whichever dvc.lock has it."""
        md5 = tags.get("dvc_md5", "")
        for record in records(md5, tags.get("git", "")):
            if md5 and (stages := record.holders(md5)):
                return Found(what, record, tuple(stages), number)
        self.notes.append(
            f"no dvc.lock, of the workspace or of a commit, records the model's md5 "
            f"{md5 or '(none is written on the version)'}: "
            "how it was trained is known from the version's tags only"
        )
        return Found(what, None, version=number)

    def _md5(self, x: str) -> Found | None:
        for record in records(x):
            stages = record.holders(x) or record.holders(f"{x}.dir") or self._inside(record, x)
            if stages:
                return Found(f"md5 {x}", record, tuple(stages))
        return self._by_tag("dvc_md5", x, f"md5 {x}")

    def _inside(self, record: Record, x: str) -> list[Stage]:
        """The stages that left a folder with a file of that md5."""
        return [
            stage
            for stage in record.stages.values()
            if any(
                x in self.workspace.inside(out).values()
                for out in stage.writes
                if out.md5.endswith(".dir")
            )
        ]

    def _mlflow_run(self, x: str) -> Found | None:
        if found := self._by_tag("mlflow_run", x, f"MLflow run {x}"):
            return found
        tags = self._run_tags(x)
        if tags is None:
            return None
        fingerprint = tags.get("fingerprint", "")
        for record in records():
            for stage in record.stages.values():
                model = model_of(stage)
                if model and fingerprint and fingerprint == self.fingerprint(model):
                    return Found(f"MLflow run {x}", record, (stage,))
        raise DenseclError(
            f"{x}: an MLflow run of fingerprint "
            f"{fingerprint or '(none: no training of the pipeline)'}, "
            f"but no model that {paths.PARAMS.with_name('dvc.lock')} records has it; expected "
            f"{MAY_BE}"
        )

    def _zenml_run(self, x: str) -> Found | None:
        if found := self._by_tag("zenml_run", x, f"ZenML run {x}"):
            return found
        record = _of_zenml_run(x)
        return Found(f"ZenML run {x}", record, tuple(record.stages.values())) if record else None

    def _path(self, x: str) -> Found | None:
        path = os.path.relpath(x or ".")
        if Path(path).is_relative_to(paths.model(paths.CHAMPION, 0)):
            return self._version("champion")
        for record in records():
            for kind in (
                "writes",
                "reads",
            ):  # a plan, and images that no stage made, are known by who read them
                stages = [
                    stage
                    for stage in record.stages.values()
                    if stage.name != PLANNING
                    and any(self._holds(file, path) for file in getattr(stage, kind))
                ]
                if stages:
                    return Found(path, record, tuple(stages))
        return None

    def _holds(self, file: File, path: str) -> bool:
        below = path.removeprefix(f"{file.path}/")
        return path == file.path or (
            below != path and (Path(path).exists() or below in self.workspace.inside(file))
        )

    def _by_tag(self, tag: str, value: str, what: str) -> Found | None:
        for number, tags in reversed(self.listed().items()):
            if tags.get(tag) == value or (tag == "dvc_md5" and tags.get(tag) == f"{value}.dir"):
                return self._tagged(f"{what}, of version {number} of {self.name}", number, tags)
        return None

    def listed(self) -> dict[str, dict[str, str]]:
        """Versions of the registry; a store that does not answer is a note, not the end."""
        try:
            return registry.listed(self.name)
        except RegistryError as error:
            if str(error) not in self.notes:
                self.notes.append(str(error))
            return {}

    def _run_tags(self, run: str) -> dict[str, str] | None:
        try:
            return mlflow_client.run_tags(run)
        except RegistryError as error:
            self.notes.append(str(error))
            return None

    def fingerprint(self, model: File) -> str:
        """Of the recorded model, from its config.json; "" where that is no longer there."""
        digest = self.workspace.inside(model).get("config.json")
        config = self.workspace.text(File(f"{model.path}/config.json", digest)) if digest else None
        return str(json.loads(config).get("fingerprint", "")) if config else ""

    def runs(self, fingerprint: str) -> list[tuple[str, dict[str, str]]]:
        """MLflow runs of a training, the newest first."""
        try:
            return (
                mlflow_client.runs(EXPERIMENT, fingerprint)
                if re.fullmatch(r"[0-9a-f]+", fingerprint)
                else []
            )
        except RegistryError as error:
            self.notes.append(str(error))
            return []


def lineage(x: str) -> Chain:
    """The chain that X is a link of; DenseclError where nothing is recorded of X."""
    resolver = Resolver(load_params(paths.PARAMS).retraining.registry)
    found = resolver.find(x)
    builder = Builder(found.record or Record("none", "", {}), resolver.workspace)
    builder.add(found.stages)
    listed = resolver.listed()
    for stage in list(builder.record.stages.values()):
        if stage.name in builder.links and (model := model_of(stage)):
            _tracked(builder, resolver, stage, model)
            _judged(
                builder,
                resolver.name,
                stage.name,
                {n: t for n, t in listed.items() if _of(n, t, model, found)},
            )
    if found.version and found.record is None:
        _remembered(builder, found.version, listed[found.version])
        _judged(builder, resolver.name, "train (from tags)", {found.version: listed[found.version]})
    return builder.chain(x, found.what, resolver.notes)


def main(x: str, html: str | None = None) -> None:
    """Print the chain of X with its Mermaid source; write it as a page to `html` where that is
    given.
    """
    chain = lineage(x)
    print(text(chain))
    if html:
        write_text(Path(html), page(chain))
        print(html)


def _of(number: str, tags: dict[str, str], model: File, found: Found) -> bool:
    return tags.get("dvc_md5") == model.md5 and found.version in (None, number)


def _tracked(builder: Builder, resolver: Resolver, stage: Stage, model: File) -> None:
    """MLflow's runs of the training, as facts of its link."""
    link, fingerprint = builder.links[stage.name], resolver.fingerprint(model)
    if not fingerprint:
        note = (
            f"{model.path}: its config.json is in neither the workspace "
            f"nor DVC's cache: no MLflow run can be looked up"
        )
        builder.links[stage.name] = replace(link, notes=(*link.notes, note))
        return
    runs = resolver.runs(fingerprint)
    facts = [
        ("fingerprint", fingerprint),
        ("mlflow_run", runs[0][0] if runs else "none with this fingerprint"),
    ]
    if runs and (commit := runs[0][1].get("mlflow.source.git.commit")):
        facts.append(("trained at git", commit))
    builder.links[stage.name] = replace(link, facts=(*link.facts, *facts))


def _judged(builder: Builder, name: str, model: str, listed: dict[str, dict[str, str]]) -> None:
    cells = [
        n
        for n, link in builder.links.items()
        if link.kind == "evaluation" and (model, n) in builder.edges
    ]
    for number, tags in listed.items():
        gate, version = version_links(name, number, tags)
        builder.links |= {gate.name: gate, version.name: version}
        builder.edges |= dict.fromkeys(
            [*((cell, gate.name) for cell in cells or [model]), (gate.name, version.name)]
        )


def _remembered(builder: Builder, number: str, tags: dict[str, str]) -> None:
    """What a version's own tags say of its training, where no dvc.lock does."""
    reads = tuple(
        File(key.removeprefix("md5 "), md5) for key, md5 in tags.items() if key.startswith("md5 ")
    )
    facts = tuple((key, tags.get(key) or "none") for key in ("git", "fingerprint", "mlflow_run"))
    writes = (
        File(paths.model(tags["mode"], int(tags["seed"])).as_posix(), tags.get("dvc_md5", "")),
    )
    note = f"params, images and evaluation of version {number}: no dvc.lock records them"
    builder.links["train (from tags)"] = Link("train (from tags)", reads, writes, facts, (note,))


def _of_zenml_run(x: str) -> Record | None:
    """The DVC stages that the steps of a run brought up to date; None where ZenML knows no such
    run.
    """
    if not (paths.ZENML.exists() or "ZENML_CONFIG_PATH" in os.environ):
        return None
    from pipelines.runtime import zenml_env

    try:
        steps = zenml_env.client().get_pipeline_run(x, allow_name_prefix_match=False).steps.values()
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
            f"{x}: a run of ZenML, but what its steps returned cannot be read: {error}"
        ) from None
    commits = [step.run_metadata["git"] for step in steps if "git" in step.run_metadata]
    stages = {
        r.stage: Stage(r.stage, _pairs(r.deps.items()), _pairs(r.outs.items())) for r in references
    }
    return (
        Record(f"the steps of ZenML run {x}", str(commits[0]) if commits else "", stages)
        if stages
        else None
    )


def _pairs(md5: Iterable[tuple[str, str]]) -> tuple[File, ...]:
    return tuple(File(path, each) for path, each in md5)
