"""MLflow's pages and ZenML's dashboard of this project, on 127.0.0.1, until Ctrl-C."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.errors import DenseclError, Interrupted
from densecl.monitoring.mlflow_store import TRACKING_URI
from densecl.runtime.signals import SIGNALS
from pipelines.runtime import zenml_env

HOST = "127.0.0.1"
PAGES = {
    "MLflow": "/#/experiments?workflowType=machine_learning",
    "ZenML": "/projects/default/runs",
}
MLFLOW_PORT, ZENML_PORT = 5000, 8237  # their own defaults; others where these are taken
# Of zenml[server].
NEEDED = (
    "fastapi",
    "uvicorn",
    "multipart",
    "jwt",
    "secure",
    "ipinfo",
    "tldextract",
    "itsdangerous",
    "cachetools",
)
QUIETER = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"
}  # of MLflow's judges of language models: three processes
PATIENCE = 90.0  # s that a server may take to answer
QUIET = 10.0  # s that a server may take to end


def main() -> None:
    """Start both, print their addresses once they answer, and end both at a signal or when one of
    them ends.
    """
    zenml_env.prepare()
    for each in SIGNALS:
        signal.signal(each, _interrupt)
    servers: dict[str, subprocess.Popen[bytes]] = {}
    try:
        wanted = _wanted()
        for name, _, command in wanted:
            servers[name] = _start(name, command)
        for name, port, _ in wanted:
            _await(name, servers[name], port)
            if name == "ZenML":
                _spare_the_survey(port)
            print(f"{name}: http://{HOST}:{port}{PAGES[name]}", flush=True)
        print("Ctrl-C ends it", flush=True)
        while all(server.poll() is None for server in servers.values()):
            time.sleep(0.5)
        gone = next(name for name, server in servers.items() if server.poll() is not None)
        raise DenseclError(
            f"{gone}: ended by itself with status {servers[gone].returncode}; {_log(gone)} has "
            f"what it said"
        )
    except Interrupted:
        print("ended", flush=True)
    finally:
        _end(list(servers.values()))


def _start(name: str, command: list[str]) -> subprocess.Popen[bytes]:
    paths.UI_LOGS.mkdir(parents=True, exist_ok=True)
    with _log(name).open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | QUIETER,
            process_group=0,
        )


def _log(name: str) -> Path:
    return paths.UI_LOGS / f"{name.lower()}.log"


def _wanted() -> list[tuple[str, int, list[str]]]:
    found = (
        [("MLflow", *_mlflow())]
        if os.environ.get("MLFLOW_TRACKING_URI", TRACKING_URI).startswith("sqlite:")
        else []
    )
    if not found:
        print(f"MLflow: {os.environ['MLFLOW_TRACKING_URI']}", flush=True)
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        print(
            f"ZenML's dashboard needs `pip install 'zenml[server]'`: {', '.join(missing)} not "
            f"found",
            flush=True,
        )
        return found
    port = _free(ZENML_PORT)
    tool = str(Path(sys.executable).with_name("zenml"))
    # Blocking: the project's own store stays what pipelines write to; no server is left behind.
    return [
        *found,
        (
            "ZenML",
            port,
            [tool, "login", "--local", "--blocking", "--ip-address", HOST, "--port", str(port)],
        ),
    ]


def _mlflow() -> tuple[int, list[str]]:
    port = _free(MLFLOW_PORT)
    store = os.environ.get("MLFLOW_TRACKING_URI", TRACKING_URI)
    return port, [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        HOST,
        "--port",
        str(port),
        "--backend-store-uri",
        store,
        "--workers",
        "1",
    ]


def _free(port: int) -> int:
    """`port`, or another one where it is taken."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError:
            tried.bind((HOST, 0))
        return int(tried.getsockname()[1])


def _await(name: str, server: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        time.sleep(0.2)
    raise DenseclError(
        f"{name}: no answer on port {port} within {PATIENCE:g} s; {_log(name)} has what it said"
    )


def _spare_the_survey(port: int) -> None:
    """ZenML's dashboard first asks for a name, an address and leave to send news: here the answer
    is no.
    """
    import requests

    user = f"http://{HOST}:{port}/api/v1/current-user"
    with contextlib.suppress(requests.RequestException, KeyError, ValueError):
        if requests.get(user, timeout=10).json()["body"]["email_opted_in"] is None:
            answers: Any = {
                "email_opted_in": False,
                "user_metadata": {"finished_onboarding_survey": True},
            }
            requests.put(user, json=answers, timeout=10)


def _end(servers: list[subprocess.Popen[bytes]]) -> None:
    """With all that they started."""
    for how, patience in ((signal.SIGTERM, QUIET), (signal.SIGKILL, QUIET)):
        for server in servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, how)
        for server in servers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(patience)


def _interrupt(number: int, _: object) -> None:
    raise Interrupted(signal.Signals(number).name)
