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
from densecl.runtime.signals import STOP_SIGNALS
from pipelines.runtime import zenml_env

HOST = "127.0.0.1"
PAGES = {
    "MLflow": "/#/experiments?workflowType=machine_learning",
    "ZenML": "/projects/default/runs",
}
MLFLOW_PORT, ZENML_PORT = 5000, 8237  # their own defaults; others where these are taken
# Of zenml[server].
DASHBOARD_MODULES = (
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
SERVER_ENV = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"
}  # of MLflow's judges of language models: three processes
START_TIMEOUT = 90.0  # s that a server may take to answer
STOP_TIMEOUT = 10.0  # s that a server may take to end


def main() -> None:
    """Start both, print their addresses once they answer, and end both at a signal or when one of
    them ends.
    """
    zenml_env.configure_environment()
    for signal_number in STOP_SIGNALS:
        signal.signal(signal_number, _raise_interrupted)
    servers: dict[str, subprocess.Popen[bytes]] = {}
    try:
        commands = _list_servers()
        for name, _, command in commands:
            servers[name] = _start_server(name, command)
        for name, port, _ in commands:
            _wait_for_server(name, servers[name], port)
            if name == "ZenML":
                _decline_survey(port)
            print(f"{name}: http://{HOST}:{port}{PAGES[name]}", flush=True)
        print("Ctrl-C ends it", flush=True)
        while all(server.poll() is None for server in servers.values()):
            time.sleep(0.5)
        ended_name = next(name for name, server in servers.items() if server.poll() is not None)
        raise DenseclError(
            f"{ended_name}: ended by itself with status {servers[ended_name].returncode}; "
            f"{_get_log_path(ended_name)} holds "
            f"its output"
        )
    except Interrupted:
        print("ended", flush=True)
    finally:
        _stop_servers(list(servers.values()))


def _start_server(name: str, command: list[str]) -> subprocess.Popen[bytes]:
    paths.UI_LOGS.mkdir(parents=True, exist_ok=True)
    with _get_log_path(name).open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | SERVER_ENV,
            process_group=0,
        )


def _get_log_path(name: str) -> Path:
    return paths.UI_LOGS / f"{name.lower()}.log"


def _list_servers() -> list[tuple[str, int, list[str]]]:
    commands = (
        [("MLflow", *_build_mlflow_command())]
        if os.environ.get("MLFLOW_TRACKING_URI", TRACKING_URI).startswith("sqlite:")
        else []
    )
    if not commands:
        print(f"MLflow: {os.environ['MLFLOW_TRACKING_URI']}", flush=True)
    if missing := [name for name in DASHBOARD_MODULES if importlib.util.find_spec(name) is None]:
        print(
            f"ZenML's dashboard needs `pip install 'zenml[server]'`: {', '.join(missing)} not "
            f"found",
            flush=True,
        )
        return commands
    port = _find_free_port(ZENML_PORT)
    tool = str(Path(sys.executable).with_name("zenml"))
    # Blocking: the project's own store stays what pipelines write to; no server is left behind.
    return [
        *commands,
        (
            "ZenML",
            port,
            [tool, "login", "--local", "--blocking", "--ip-address", HOST, "--port", str(port)],
        ),
    ]


def _build_mlflow_command() -> tuple[int, list[str]]:
    port = _find_free_port(MLFLOW_PORT)
    store_uri = os.environ.get("MLFLOW_TRACKING_URI", TRACKING_URI)
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
        store_uri,
        "--workers",
        "1",
    ]


def _find_free_port(port: int) -> int:
    """`port`, or another one where it is taken."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
        except OSError:
            sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


def _wait_for_server(name: str, server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        time.sleep(0.2)
    raise DenseclError(
        f"{name}: no answer on port {port} within {START_TIMEOUT:g} s; {_get_log_path(name)} holds "
        f"its output"
    )


def _decline_survey(port: int) -> None:
    """ZenML's dashboard first asks for a name, an address and leave to send news: here the answer
    is no.
    """
    import requests

    url = f"http://{HOST}:{port}/api/v1/current-user"
    with contextlib.suppress(requests.RequestException, KeyError, ValueError):
        if requests.get(url, timeout=10).json()["body"]["email_opted_in"] is None:
            answers: Any = {
                "email_opted_in": False,
                "user_metadata": {"finished_onboarding_survey": True},
            }
            requests.put(url, json=answers, timeout=10)


def _stop_servers(servers: list[subprocess.Popen[bytes]]) -> None:
    """With all that they started."""
    for signal_number, timeout in ((signal.SIGTERM, STOP_TIMEOUT), (signal.SIGKILL, STOP_TIMEOUT)):
        for server in servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal_number)
        for server in servers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout)


def _raise_interrupted(signal_number: int, _: object) -> None:
    raise Interrupted(signal.Signals(signal_number).name)
