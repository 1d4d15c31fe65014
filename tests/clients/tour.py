"""The tour that every Python client takes through the broker, over the fixture as child.

Neighbours: `python-*/client.py` bring an SDK each, `tour.mjs` is the same tour for TypeScript, and `scripts/clients`
starts the broker and runs them all. Prints `ok NAME` for each step and exits 1 at the first failure.

The two generations of the SDK differ in packages and spellings; an `Sdk` holds what the tour must know of that.
"""

import json
import re
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

STEP_SECONDS = 15  # the longest any one step may take
WATCHED = "test://watched-resource"
LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")


class Inbox:
    """What came in, and a way to wait until there are `n` of it."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self._more = anyio.Event()

    def put(self, item: Any) -> None:
        self.seen.append(item)
        self._more.set()
        self._more = anyio.Event()

    async def reached(self, n: int) -> list[Any]:
        while len(self.seen) < n:
            await self._more.wait()
        return self.seen


@dataclass
class Wire:
    """What passes through the SDK's HTTP client: the session id, and the id of each tools/call."""

    session: str | None = None
    calls: list[Any] = field(default_factory=list)

    async def on_request(self, request: Any) -> None:
        message = json.loads(request.content) if request.method == "POST" else {}
        if message.get("method") == "tools/call":
            self.calls.append(message["id"])

    async def on_response(self, response: Any) -> None:
        self.session = response.headers.get("mcp-session-id", self.session)

    def hooks(self) -> dict[str, list[Any]]:
        return {"request": [self.on_request], "response": [self.on_response]}


@dataclass
class Client:
    """One SDK's side of the connection, and what reached its callbacks."""

    wire: Wire = field(default_factory=Wire)
    logs: Inbox = field(default_factory=Inbox)
    updates: Inbox = field(default_factory=Inbox)
    tool_changes: Inbox = field(default_factory=Inbox)
    prompt_changes: Inbox = field(default_factory=Inbox)


@dataclass
class Sdk:
    """What differs between the generations."""

    http: Any  # its HTTP library: `httpx` or `httpx2`
    error: type[Exception]  # a JSON-RPC error, as the SDK raises it
    connect: Callable[[str, Any, Client], AbstractAsyncContextManager[tuple[Any, str]]]  # -> session, protocol version
    uri: Callable[[str], Any]
    is_error: Callable[[Any], bool]
    cancel: Callable[[Any, Any], Any]  # tells the server that a call is cancelled, where the SDK does not do so itself


class Steps:
    """Where the tour is: a failure may come from a task of the SDK, outside of the step that it ends."""

    now = "connect"


@asynccontextmanager
async def step(name: str) -> AsyncIterator[None]:
    Steps.now = name
    with anyio.fail_after(STEP_SECONDS):
        yield
    print(f"ok {name}", flush=True)


def same(seen: Any, wanted: Any) -> None:
    if seen != wanted:
        raise AssertionError(f"{str(seen)[:200]!r} where {str(wanted)[:200]!r} was wanted")


def holds(fact: object, what: str) -> None:
    if not fact:
        raise AssertionError(what)


def text(result: Any) -> str:
    return result.content[0].text


def echoed(result: Any) -> str:
    return json.loads(text(result))["text"]  # `echo` returns its arguments


async def heard(session: Any, method: str) -> Any:
    """The params of the first such notification that has reached the child."""
    while True:
        for notification in json.loads(text(await session.call_tool("received", {}))):
            if notification["method"] == method:
                return notification["params"]
        await anyio.sleep(0.02)


async def listing(session: Any) -> None:
    async with step("tools/list"):
        holds("echo" in [tool.name for tool in (await session.list_tools()).tools], "no tool echo")
    async with step("resources/list"):
        uris = [str(resource.uri) for resource in (await session.list_resources()).resources]
        holds("test://static-text" in uris, uris)
    async with step("prompts/list"):
        names = [prompt.name for prompt in (await session.list_prompts()).prompts]
        holds("test_simple_prompt" in names, names)
    async with step("prompts/get"):
        holds((await session.get_prompt("test_simple_prompt")).messages, "an empty prompt")


async def calling(sdk: Sdk, session: Any, client: Client) -> None:
    async with step("tools/call"):
        for said in ("hello", 'a\u2028b \U0001f980 "\\n"', "x" * 256 * 1024):
            same(echoed(await session.call_tool("echo", {"text": said})), said)
    async with step("thirty-two calls at once"):
        answers: dict[str, str] = {}

        async def echo(said: str) -> None:
            answers[said] = echoed(await session.call_tool("echo", {"text": said}))

        async with anyio.create_task_group() as calls:
            for i in range(32):
                calls.start_soon(echo, f"call {i}")
        same(sorted(answers), sorted(f"call {i}" for i in range(32)))
        same(list(answers.keys()), list(answers.values()))
    async with step("tool error"):
        holds(sdk.is_error(await session.call_tool("test_error_handling", {})), "not an error")
    async with step("protocol error"):
        try:
            await session.get_prompt("there is no such prompt")
        except sdk.error:
            pass
        else:
            raise AssertionError("no error")
    async with step("progress"):
        seen = []

        async def progress(now: float, _total: float | None, _message: str | None) -> None:
            seen.append(now)

        await session.call_tool("count", {"n": 5, "delay_ms": 20}, progress_callback=progress)
        same(seen, [1, 2, 3, 4, 5])
    async with step("logging"):
        await session.set_logging_level("info")
        await session.call_tool("log", {"n": 3, "level": "info"})
        same([params.level for params in (await client.logs.reached(3))[:3]], ["info"] * 3)


async def being_asked(session: Any) -> None:
    for kind, wanted in (("sampling", "sampled by the tour"), ("elicitation", "tour-name"), ("roots", "tour-root")):
        async with step(kind):
            answer = text(await session.call_tool("ask", {"kind": kind}))
            holds(wanted in answer, answer)
    async with step("roots changed"):
        await session.send_roots_list_changed()
        await heard(session, "notifications/roots/list_changed")


async def being_told(sdk: Sdk, session: Any, client: Client) -> None:
    async with step("resources/read"):
        holds((await session.read_resource(sdk.uri("test://static-text"))).contents[0].text, "an empty resource")
    async with step("resource updated"):
        await session.subscribe_resource(sdk.uri(WATCHED))
        await session.call_tool("notify", {"method": "notifications/resources/updated", "params": {"uri": WATCHED}})
        same(str((await client.updates.reached(1))[0].uri), WATCHED)
        await session.unsubscribe_resource(sdk.uri(WATCHED))
    async with step("list changed, while a call is open"):
        await session.call_tool("notify", {"method": "notifications/tools/list_changed"})
        await client.tool_changes.reached(1)
    async with step("list changed, on the GET stream"):
        await session.call_tool("notify_after", {"method": "notifications/prompts/list_changed", "ms": 100})
        await client.prompt_changes.reached(1)


async def cancelling(sdk: Sdk, session: Any, client: Client) -> None:
    async with step("cancellation"):
        started = Inbox()

        async def progress(now: float, _total: float | None, _message: str | None) -> None:
            started.put(now)

        async def count() -> None:
            await session.call_tool("count", {"n": 600, "delay_ms": 100}, progress_callback=progress)

        sent = len(client.wire.calls)
        async with anyio.create_task_group() as calls:
            calls.start_soon(count)
            await started.reached(1)
            await sdk.cancel(session, client.wire.calls[sent])
            calls.cancel_scope.cancel()
        same((await heard(session, "notifications/cancelled"))["requestId"], client.wire.calls[sent])


async def tour(sdk: Sdk, url: str, token: str) -> None:
    client = Client()
    async with sdk.http.AsyncClient(
        headers={"Authorization": f"Bearer {token}"},
        timeout=sdk.http.Timeout(STEP_SECONDS, read=300),
        event_hooks=client.wire.hooks(),
    ) as http:
        async with sdk.connect(url, http, client) as (session, version):
            async with step("connect"):
                holds(version in LEGACY, f"protocol version {version}")
                holds(re.fullmatch("[0-9a-f]{48}", client.wire.session or ""), client.wire.session)
            async with step("ping"):
                await session.send_ping()
            await listing(session)
            await calling(sdk, session, client)
            await being_asked(session)
            await being_told(sdk, session, client)
            await cancelling(sdk, session, client)
            async with step("nothing has come twice"):
                inboxes = (client.logs, client.updates, client.tool_changes, client.prompt_changes)
                same([len(inbox.seen) for inbox in inboxes], [3, 1, 1, 1])
        async with step("close"):
            gone = await http.post(
                url,
                headers={"Accept": "application/json, text/event-stream", "Mcp-Session-Id": client.wire.session},
                json={"jsonrpc": "2.0", "id": 1, "method": "ping"},
            )
            same(gone.status_code, 404)


def reasons(error: BaseException) -> list[BaseException]:
    """The errors in a group, without the groups."""
    if isinstance(error, BaseExceptionGroup):
        return [reason for inner in error.exceptions for reason in reasons(inner)]
    return [error]


def main(sdk: Sdk) -> None:
    url, token = sys.argv[1:3]
    try:
        anyio.run(tour, sdk, url, token)
    except Exception as error:
        for reason in reasons(error):
            print(f"FAILED {Steps.now}: {''.join(traceback.format_exception(reason, limit=-3, chain=False))}", flush=True)
        raise SystemExit(1) from None
