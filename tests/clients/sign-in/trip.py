"""The trip that every Python client takes, with the SDK's own OAuth; `trip.mjs` is the same trip for TypeScript.

`python python-1.py URL USER TOOL ARGUMENTS EXPECTED [CLIENT_ID]`, with this file on PYTHONPATH and the browser as the
command in $BROWSER_COMMAND, to which the user and the URL are added. What TOOL answers is to contain EXPECTED;
CLIENT_ID is the URL of a metadata document (else the client registers). Prints `ok NAME` for each step and exits 1 at
the first failure. An SDK is handed over as `Sdk`.
"""

import json
import os
import shlex
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio

STEP_SECONDS = 30


@dataclass
class Sdk:
    http: Any  # the module of its HTTP client
    provider: type  # OAuthClientProvider
    metadata: type  # OAuthClientMetadata
    result: Callable[[dict[str, str]], Any]  # what a callback handler returns
    connect: Callable[..., AbstractAsyncContextManager[Any]]  # (url, http client) to a session


class Steps:
    now = "start"


@asynccontextmanager
async def step(name: str) -> AsyncIterator[None]:
    Steps.now = name
    with anyio.fail_after(STEP_SECONDS):
        yield
    print(f"ok {name}", flush=True)


def holds(condition: object, why: object) -> None:
    if not condition:
        raise AssertionError(why)


class Listener:
    """The client's redirect URI, on a free port, and what came back to it."""

    def __init__(self, host: str) -> None:
        returned: list[dict[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                found = parts.path == "/callback"
                if found:
                    returned.append({name: values[0] for name, values in parse_qs(parts.query).items()})
                self.send_response(200 if found else 404)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.returned = returned
        self.uri = f"http://{host}:{server.server_port}/callback"


class Memory:
    """A token storage of either generation."""

    def __init__(self) -> None:
        self.saved: list[Any] = []
        self.client: Any = None

    async def get_tokens(self) -> Any:
        return self.saved[-1] if self.saved else None

    async def set_tokens(self, tokens: Any) -> None:
        self.saved.append(tokens)

    async def get_client_info(self) -> Any:
        return self.client

    async def set_client_info(self, client_info: Any) -> None:
        self.client = client_info


def text(result: Any) -> str:
    return "\n".join(getattr(it, "text", "") for it in result.content)


async def trip(sdk: Sdk, url: str, user: str, tool: str, arguments: str, expected: str, client_id: str | None) -> None:
    # The documents of known clients list the name, and registering clients are told to use the address.
    listener = Listener("localhost" if client_id else "127.0.0.1")
    memory = Memory()
    sent: list[str] = []

    async def browse(to: str) -> None:
        sent.append(to)
        command = [*shlex.split(os.environ["BROWSER_COMMAND"]), user, to]
        done = await anyio.to_thread.run_sync(lambda: subprocess.run(command, capture_output=True, text=True))
        holds(done.returncode == 0, done.stdout + done.stderr)

    async def come_back() -> Any:
        holds(listener.returned, "nothing came back to the redirect URI")
        found = listener.returned[-1]
        holds("error" not in found, found)
        parts = urlsplit(url)
        holds(found["iss"] == f"{parts.scheme}://{parts.netloc}", found)
        return sdk.result(found)

    provider = sdk.provider(
        url,
        sdk.metadata(client_name="The trip", redirect_uris=[listener.uri], token_endpoint_auth_method="none"),
        memory,
        browse,
        come_back,
        client_metadata_url=client_id,
    )
    async with sdk.http.AsyncClient(auth=provider, timeout=sdk.http.Timeout(STEP_SECONDS, read=300)) as http:
        async with step("turned away"):
            async with sdk.http.AsyncClient() as stranger:
                refused = await stranger.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
            holds(refused.status_code == 401, refused.status_code)
            holds("resource_metadata=" in refused.headers["WWW-Authenticate"], refused.headers)
        Steps.now = "sign in"
        async with sdk.connect(url, http) as session:
            async with step("sign in"):
                holds(len(memory.saved) == 1 and len(sent) == 1, f"{len(memory.saved)} tokens, {len(sent)} visits")
                asked = parse_qs(urlsplit(sent[0]).query)
                holds(asked["resource"] == [url], asked)
                holds(not client_id or asked["client_id"] == [client_id], asked)

            async def call() -> None:
                answer = text(await session.call_tool(tool, json.loads(arguments)))
                holds(expected in answer, f"{tool} says {answer}")

            async with step("list tools"):
                holds(tool in [it.name for it in (await session.list_tools()).tools], f"no tool {tool}")
            async with step("call"):
                await call()
            async with step("refresh"):
                before = memory.saved[-1]
                context = provider.context
                context.current_tokens = before.model_copy(update={"access_token": f"{before.access_token}x"})
                context.token_expiry_time = time.time() - 1  # it refreshes by its own clock, not by an answer
                await call()
                now = memory.saved[-1]
                holds(now.access_token != before.access_token, "the same access token")
                holds(now.refresh_token != before.refresh_token, "the refresh token was not rotated")
                holds(len(sent) == 1, "the person was asked again")
            async with step("call again"):
                await call()
    async with step("revoke"), sdk.http.AsyncClient() as stranger:
        endpoint = str(provider.context.oauth_metadata.revocation_endpoint)
        form = {"token": memory.saved[-1].refresh_token, "client_id": memory.client.client_id}
        revoked = await stranger.post(endpoint, data=form)
        holds(revoked.status_code == 200, revoked.status_code)
        headers = {"Authorization": f"Bearer {memory.saved[-1].access_token}"}
        late = await stranger.post(url, headers=headers, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
        holds(late.status_code == 401, late.status_code)


def reasons(error: BaseException) -> list[BaseException]:
    """The errors in a group, without the groups."""
    if isinstance(error, BaseExceptionGroup):
        return [reason for inner in error.exceptions for reason in reasons(inner)]
    return [error]


def main(sdk: Sdk) -> None:
    url, user, tool, arguments, expected, *rest = sys.argv[1:]
    try:
        anyio.run(trip, sdk, url, user, tool, arguments, expected, rest[0] if rest else None)
    except Exception as error:
        for reason in reasons(error):
            why = "".join(traceback.format_exception(reason, limit=-3, chain=False))
            print(f"FAILED {Steps.now}: {why}", flush=True)
        raise SystemExit(1) from None
