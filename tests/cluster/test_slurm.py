"""A real Slurm of two nodes with only S3 between them: the lock file of `dvc repro`; a preempted
training whose next node dies ends in the same bits; trials of a sweep are jobs.
"""

import re
import signal

import pytest

from tests.cluster.long_training import MODEL, prepare_training, run_here, wait_until
from tests.cluster.slurm import SlurmCluster
from tests.cluster.small_project import (
    DVC,
    read_stable_lock,
    repeat_project,
    set_params,
    use_bucket,
)
from tests.pipelines.project_factory import call, pipelines

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def test_two_nodes_with_s3_between_them_leave_the_lock_file_of_dvc_repro(
    finished, slurm, bucket, tmp_path
):
    place = repeat_project(finished, tmp_path / "densecl")
    use_bucket(place, bucket, "comparison")
    scratch = f"{tmp_path}/$SLURMD_NODENAME"
    set_params(place, cluster={"engine": "slurm", "scratch": scratch})
    plan = pipelines(place, "comparison", "--dry-run")
    assert "train@none-0: changed; sbatch --cpus-per-task=1 --job-name=train@none-0" in plan
    changes = pipelines(place, "retraining", "--dry-run")
    assert "train@none-0: changed; sbatch --cpus-per-task=1 --job-name=train@none-0" in changes
    said = pipelines(place, "comparison")
    assert read_stable_lock(place) == read_stable_lock(finished)
    assert call(place, *DVC, "status", "--quiet") == ""
    assert (place / MODEL).read_bytes() == (finished / MODEL).read_bytes()
    assert "running on n1" in said
    assert "running on n2" in said
    assert "MLflow logging stopped" not in (place / "cache/stages/train@none-0.log").read_text()
    assert pipelines(place, "status") == "no job of this project is known to be on other machines\n"


def test_the_trials_of_a_sweep_run_on_both_nodes(finished, slurm, bucket, tmp_path):
    place = repeat_project(finished, tmp_path / "densecl")
    use_bucket(place, bucket, "sweep")
    scratch = f"{tmp_path}/$SLURMD_NODENAME"
    set_params(place, cluster={"engine": "slurm", "scratch": scratch})
    plan = pipelines(place, "sweep", "--budget", "2", "--dry-run")
    assert plan.startswith(
        "2 trials of each of global and none; 256 at a time at most, each: sbatch"
    )
    assert not (place / "sweeps").exists()
    said = pipelines(place, "sweep", "--budget", "2")
    assert {node for node in ("n1", "n2") if f"running on {node}" in said} == {"n1", "n2"}
    assert "none trial 2 of 2: top-1" in said
    assert (place / "presets/tuned-default.yaml").exists()
    assert pipelines(place, "status") == "no job of this project is known to be on other machines\n"


def test_an_interrupted_command_a_preemption_and_a_dead_node_change_no_bit(slurm, tmp_path):
    job = prepare_training(tmp_path, "slurm")
    command = job.start()
    job.wait_for_steps()
    number = slurm.run("squeue", "--noheader", "--format=%i").strip()
    node = get_node(slurm, number)
    slurm.run(
        "sbatch",
        "--partition=urgent",
        "--exclusive",
        f"--nodelist={node}",
        "--wrap=true",
        "--output=/dev/null",
    )
    wait_until(lambda: get_state(slurm, number) == "PENDING")
    command.send_signal(signal.SIGINT)
    assert command.wait(60) == 75
    assert f"left running as slurm job {number}; the same command attac" in job.log.read_text()
    assert f"train@none-0: slurm job {number}, queued" in pipelines(job.place, "status")
    command = job.start()
    slurm.run("scontrol", "update", f"JobId={number}", "StartTime=now")  # not 120 s later
    job.wait_for_steps()
    node = get_node(slurm, number)
    slurm.kill_node(node)
    slurm.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=killed")
    wait_until(lambda: get_state(slurm, number) == "PENDING")
    slurm.run("scontrol", "update", f"JobId={number}", "StartTime=now")
    assert command.wait(200) == 0, job.log.read_text()
    slurm.start_node(node)
    assert set(re.findall(r"slurm job (\d+)", job.log.read_text())) == {number}
    assert (job.place / MODEL).read_bytes() == run_here(job.place)
    assert not list(job.place.glob("checkpoints/*/step-*.pt"))


def get_state(slurm: SlurmCluster, job: str) -> str:
    return slurm.run("squeue", "--noheader", "--format=%T", f"--jobs={job}").strip()


def get_node(slurm: SlurmCluster, job: str) -> str:
    wait_until(lambda: get_state(slurm, job) == "RUNNING")
    return slurm.run("squeue", "--noheader", "--format=%N", f"--jobs={job}").strip()
