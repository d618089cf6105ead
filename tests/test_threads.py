"""Threads follow from params and defaults, not from the machine; what the user set is left alone."""

import subprocess
import sys

import pytest
import torch

from densecl.runtime.threads import WAIT_POLICIES, set_openmp_defaults, set_training_threads


@pytest.mark.parametrize("policy", WAIT_POLICIES)
def test_a_policy_of_the_user_is_left_alone(policy):
    environment = {policy: "as the user set it", "OMP_NUM_THREADS": "3"}
    unchanged = dict(environment)
    set_openmp_defaults(environment)
    assert environment == unchanged


def test_a_command_has_one_thread_that_sleeps_while_it_waits():
    code = (
        "from densecl.runtime import cli; cli.setup_process(stage=False)\n"
        "import os, torch; print(torch.get_num_threads(), os.environ['OMP_WAIT_POLICY'])"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env={}, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["1", "PASSIVE"]


def test_threads_of_a_training_do_not_depend_on_the_environment():
    before = torch.get_num_threads()
    try:
        for threads, expected in ((3, 3), (1, 1), (None, 1)):
            torch.set_num_threads(2)
            set_training_threads(threads)
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
