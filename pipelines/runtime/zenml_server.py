"""ZenML's server of the project's store, behind a check of Host, Origin and a token.

The server that `zenml login --local` starts has no login, takes any Host (so that a name that a
hostile page rebinds to 127.0.0.1 reaches it) and lets pages of any Origin read and write.
"""

import hmac
import os
import sys
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from densecl.runtime.threads import set_openmp_defaults
from pipelines.runtime import zenml_env

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

# Not an argument, which other users of the machine could list.
KEY_ENV = "DENSECL_UI_KEY"
COOKIE = "densecl_ui"


class AccessGuard:
    """Passes on what carries the token in its cookie, names the server's own host, and comes from
    no other origin. `/?token=...` sets the cookie and leads to the first page.
    """

    def __init__(self, app: "ASGIApp", hosts: frozenset[str], token: str, first_page: str) -> None:
        self.app, self.hosts, self.token, self.first_page = app, hosts, token, first_page

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        from starlette.requests import HTTPConnection
        from starlette.responses import PlainTextResponse, RedirectResponse

        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        origins = {None, *(f"http://{host}" for host in self.hosts)}
        if (
            connection.headers.get("host") not in self.hosts
            or connection.headers.get("origin") not in origins
        ):
            reason = "another host or origin than the server's own"
        elif self._is_token(connection.cookies.get(COOKIE, "")):
            await self.app(scope, receive, send)
            return
        elif scope["path"] == "/" and self._is_token(connection.query_params.get("token", "")):
            redirect = RedirectResponse(self.first_page, HTTPStatus.SEE_OTHER)
            redirect.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            await redirect(scope, receive, send)
            return
        else:
            reason = "no token; open the address that `make ui` printed"
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await PlainTextResponse(reason, HTTPStatus.FORBIDDEN)(scope, receive, send)

    def _is_token(self, value: str) -> bool:
        return hmac.compare_digest(value.encode(), self.token.encode())


def main(host: str, port: str, first_page: str) -> None:
    """Serve until a signal."""
    token = os.environ.pop(KEY_ENV)
    _configure_server(f"http://{host}:{port}")
    import uvicorn
    from zenml.zen_server.zen_server_api import app

    hosts = frozenset(f"{name}:{port}" for name in (host, "localhost"))
    guard = AccessGuard(app, hosts, token, first_page)
    uvicorn.run(guard, host=host, port=int(port), server_header=False, access_log=False)


def _configure_server(origin: str) -> None:
    """What ZenML sets for a local server: the project's store, but a configuration of its own."""
    zenml_env.configure_environment()
    folder = Path(os.environ["ZENML_CONFIG_PATH"])
    os.environ |= {
        "ZENML_SERVER": "true",
        "ZENML_SERVER_ALLOW_LOCAL_FILE_ACCESS": "true",
        "ZENML_SERVER_AUTH_SCHEME": "NO_AUTH",  # the guard's token stands for it
        "ZENML_SERVER_AUTO_ACTIVATE": "true",
        "ZENML_SERVER_CORS_ALLOW_ORIGINS": origin,
        "ZENML_SERVER_DEPLOYMENT_TYPE": "local",
        "ZENML_LOCAL_STORES_PATH": str(folder / "local_stores"),
        "ZENML_CONFIG_PATH": str(folder / "server"),
    }


if __name__ == "__main__":
    set_openmp_defaults()
    main(*sys.argv[1:])
