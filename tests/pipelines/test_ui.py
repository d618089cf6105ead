"""`pipelines ui` starts its servers, says where they are, and leaves none behind."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.training_project import ENVIRONMENT

STAND_IN = """
import sys
from densecl.runtime import cli
from pipelines import dashboards as ui
def wanted():
    first, second = ui._find_free_port(5000), ui._find_free_port(0)
    serve = [sys.executable, "-m", "http.server", "--bind", ui.HOST]
    return [("MLflow", first, [*serve, str(first)]), ("ZenML", second, {second})]
ui._list_servers = wanted
sys.exit(cli.run_command(ui.main))
"""
SERVES = "[*serve, str(second)]"
FAILS = "[sys.executable, '-c', 'print(\"no database\"); raise SystemExit(3)']"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both(tmp_path, number):
    with socket.socket() as taken:  # the usual port is taken: another one is found
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 5000))
            taken.listen()
        except OSError:
            pass  # taken indeed
        process = subprocess.Popen(
            [sys.executable, "-c", STAND_IN.format(second=SERVES)],
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process:
            said = [process.stdout.readline() for _ in range(3)]
            process.send_signal(number)
            assert process.stdout.read() == "ended\n"
            assert process.wait(30) == 0
    assert [line.split(":")[0] for line in said] == ["MLflow", "ZenML", "Ctrl-C ends it\n"]
    for line in said[:2]:
        assert line.split()[1].startswith("http://127.0.0.1:")
        port = int(line.split(":")[3].split("/")[0])
        assert port != 5000
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), 1)


def test_a_server_that_fails_ends_the_other_and_is_named(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STAND_IN.format(second=FAILS)],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ZenML: ")
    assert "cache/ui/zenml.log holds its output" in done.stderr
    assert Path(tmp_path, "cache/ui/zenml.log").read_text() == "no database\n"
