"""`pipelines ui` starts its servers, says where they are, and leaves none behind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from starlette.responses import PlainTextResponse

from pipelines.runtime.zenml_server import COOKIE, AccessGuard
from tests.training.training_project import ENVIRONMENT

STAND_IN = """
import sys
from densecl.runtime import cli
from pipelines import dashboards as ui
def wanted():
    first, second = ui._find_free_port({first}), ui._find_free_port(0)
    serve = [sys.executable, "-m", "http.server", "--bind", ui.HOST]
    return [("MLflow", first, [*serve, str(first)]), ("ZenML", second, {second})]
ui._list_servers = wanted
sys.exit(cli.run_command(ui.main))
"""
SERVES = "[*serve, str(second)]"
FAILS = "[sys.executable, '-c', 'print(\"no database\"); raise SystemExit(3)']"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_both(tmp_path, number):
    with socket.socket() as taken:  # the port that is asked for is taken: another one is found
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        asked = taken.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-c", STAND_IN.format(first=asked, second=SERVES)],
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
        assert port != asked
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), 1)


def test_a_server_that_fails_ends_the_other_and_is_named(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STAND_IN.format(first=0, second=FAILS)],
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


@pytest.mark.parametrize("killed", ["command", "starter"])
def test_a_kill_leaves_no_server(tmp_path, killed):
    """A shell starts `pipelines ui`; either of the two is killed with -9."""
    script = tmp_path / "ui.py"
    script.write_text(STAND_IN.format(first=0, second=SERVES), encoding="utf-8")
    starter = subprocess.Popen(
        ["/bin/sh", "-c", f"'{sys.executable}' ui.py & echo $!; wait"],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONPATH": str(Path.cwd())},
        stdout=subprocess.PIPE,
        text=True,
    )
    with starter:
        command = int(starter.stdout.readline())
        said = [starter.stdout.readline() for _ in range(3)]
        os.kill(command if killed == "command" else starter.pid, signal.SIGKILL)
    assert said[2] == "Ctrl-C ends it\n"
    for line in said[:2]:
        wait_until_refused(int(line.split(":")[3].split("/")[0]))


def wait_until_refused(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.1)
    raise AssertionError(f"port {port} still answers")


OWN_COOKIE = f"{COOKIE}=secret"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/runs", {"cookie": OWN_COOKIE}, 200),
        ("/runs", {"cookie": OWN_COOKIE, "host": "localhost:8237"}, 200),
        ("/runs", {"cookie": OWN_COOKIE, "origin": "http://127.0.0.1:8237"}, 200),
        ("/?token=secret", {}, 303),
        ("/runs", {}, 403),
        ("/runs?token=secret", {}, 403),
        ("/?token=", {}, 403),
        ("/?token=sécret", {}, 403),
        ("/runs", {"cookie": f"{COOKIE}=other"}, 403),
        ("/runs", {"cookie": f"{COOKIE}="}, 403),
        ("/runs", {"cookie": OWN_COOKIE, "host": "evil.example"}, 403),
        ("/runs", {"cookie": OWN_COOKIE, "host": "evil.example:8237"}, 403),
        ("/runs", {"cookie": OWN_COOKIE, "origin": "http://evil.example"}, 403),
        ("/runs", {"cookie": OWN_COOKIE, "origin": "https://127.0.0.1:8237"}, 403),
        ("/runs", {"cookie": OWN_COOKIE, "origin": "http://127.0.0.1:9999"}, 403),
        ("/runs", {"cookie": OWN_COOKIE, "origin": "null"}, 403),
        ("/?token=secret", {"host": "evil.example:8237"}, 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "DELETE"])
def test_the_dashboard_answers_its_own_pages_only(path, headers, status, method):
    guard = AccessGuard(
        PlainTextResponse("inside"), frozenset({"127.0.0.1:8237", "localhost:8237"}), "secret", "/p"
    )
    sent = request(guard, method, path, {"host": "127.0.0.1:8237"} | headers)
    assert sent[0]["status"] == status
    assert (sent[1]["body"] == b"inside") is (status == 200)
    if status == 303:
        cookie = dict(sent[0]["headers"])[b"set-cookie"].decode()
        assert cookie.startswith(OWN_COOKIE)
        assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))


def request(app, method, path, headers):
    """What an ASGI app sends."""
    sent = []

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)

    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(app(scope, receive, send))
    return sent


@pytest.mark.slow
def test_no_hostile_page_reaches_the_servers(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "ui"],
        cwd=tmp_path,
        env=ENVIRONMENT
        | {"PYTHONPATH": str(Path.cwd()), "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        mlflow, zenml = (process.stdout.readline().split()[1] for _ in range(2))
        try:
            store = mlflow.split("#")[0] + "api/2.0/mlflow/experiments/search?max_results=1"
            assert fetch_status(store) == 200
            assert fetch_status(store, host="evil.example") == 403
            create = store.replace("search?max_results=1", "create")
            assert fetch_status(create, b'{"name": "x"}', origin="http://evil.example") == 403
            page, _, token = zenml.partition("?token=")
            cookie = f"{COOKIE}={token}"
            user = f"{page}api/v1/current-user"
            assert fetch_status(user) == 403
            assert fetch_status(user, cookie=cookie) == 200
            assert fetch_status(user, cookie=cookie, origin="http://evil.example") == 403
            assert fetch_status(user, cookie=cookie, host="evil.example") == 403
            assert token not in (tmp_path / "cache/ui/zenml.log").read_text()
        finally:
            process.send_signal(signal.SIGTERM)


def fetch_status(url, data=None, **headers):
    headers["content-type"] = "application/json"
    return requests.request(
        "POST" if data else "GET", url, data=data, headers=headers, timeout=30
    ).status_code
