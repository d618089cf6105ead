"""Serve MLflow and ZenML's dashboard of this project on 127.0.0.1, until Ctrl-C."""

import contextlib
import importlib.util
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from densecl import paths
from densecl.errors import DenseclError
from densecl.monitoring.mlflow_store import TRACKING_URI
from densecl.runtime.signals import STOP_SIGNALS, exit_with_parent
from pipelines.runtime import zenml_env, zenml_server

HOST = "127.0.0.1"
PAGES = {
    "MLflow": "/#/experiments?workflowType=machine_learning",
    "ZenML": "/?token={token}",
}
ZENML_PAGE = "/projects/default/runs"  # to which the token leads
MLFLOW_PORT, ZENML_PORT = 5000, 8237  # their own defaults; others where these are taken
DASHBOARD_MODULE = "ipinfo"  # comes with zenml[server] alone
SERVER_ENV = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"
}  # of MLflow's judges of language models: three processes
START_TIMEOUT = 90.0  # s that a server may take to answer
STOP_TIMEOUT = 10.0  # s that a server may take to end


def main() -> None:
    """Start both servers, print their addresses once they respond, and stop both on a signal or
    when one ends. They end with the terminal or the process that started this one too, unless
    SIGHUP is ignored (nohup).
    """
    zenml_env.configure_environment()
    os.environ[zenml_server.KEY_ENV] = token = secrets.token_urlsafe()
    for signal_number in STOP_SIGNALS:
        signal.signal(signal_number, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
        exit_with_parent()
    servers: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, port, command in _list_servers():
            servers[name] = _start_server(name, command)
            _wait_for_server(name, servers[name], port)
            page = PAGES[name].format(token=token)
            print(f"{name}: http://{HOST}:{port}{page}", flush=True)
        print("Ctrl-C ends it", flush=True)
        while all(server.poll() is None for server in servers.values()):
            time.sleep(0.5)
        name = next(name for name, server in servers.items() if server.poll() is not None)
        raise DenseclError(
            f"{name}: ended by itself with status {servers[name].returncode}; "
            f"{_get_log_path(name)} holds its output"
        )
    except KeyboardInterrupt:
        print("ended", flush=True)
    finally:
        _stop_servers(list(servers.values()))


def _start_server(name: str, command: list[str]) -> subprocess.Popen[bytes]:
    paths.UI_LOGS.mkdir(parents=True, exist_ok=True)
    with _get_log_path(name).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines.runtime.process_group", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | SERVER_ENV,
            process_group=0,
        )


def _get_log_path(name: str) -> Path:
    return paths.UI_LOGS / f"{name.lower()}.log"


def _list_servers() -> list[tuple[str, int, list[str]]]:
    """Name, port and command of each server to start."""
    servers, store = [], os.environ.get("MLFLOW_TRACKING_URI", TRACKING_URI)
    if store.startswith("sqlite:"):
        port = _find_free_port(MLFLOW_PORT)
        hosts = [f"{name}:{port}" for name in (HOST, "localhost")]
        options = f"--host {HOST} --port {port} --workers 1".split()
        options += ["--allowed-hosts", ",".join(hosts)]
        options += ["--cors-allowed-origins", ",".join(f"http://{host}" for host in hosts)]
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
        servers.append(("MLflow", port, command + options))
    else:
        place = re.sub("//.*@", "//", store).partition("?")[0]  # without a password
        print(f"MLflow: {place}", flush=True)
    if importlib.util.find_spec(DASHBOARD_MODULE):
        port = _find_free_port(ZENML_PORT)
        command = [sys.executable, "-m", "pipelines.runtime.zenml_server"]
        servers.append(("ZenML", port, [*command, HOST, str(port), ZENML_PAGE]))
    else:
        print("ZenML's dashboard is not installed: `pip install 'zenml[server]'`", flush=True)
    return servers


def _find_free_port(port: int) -> int:
    """`port`, or another one if it is in use."""
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


def _stop_servers(servers: list[subprocess.Popen[bytes]]) -> None:
    """Stop the servers with all processes that they started."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for server in servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal_number)
        for server in servers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(STOP_TIMEOUT)
