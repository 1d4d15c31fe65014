"""The tour that every Python client takes through the broker, over the fixture as child, in the era that it speaks.

Neighbours: `python-*/client.py` bring an SDK each, `tour.mjs` is the same tour for TypeScript and `rmcp-3` the one
for Rust, and `scripts/clients` starts the broker and runs them all: `python client.py URL TOKEN ERA CHILD`, where ERA
is the one that is to be spoken, and CHILD the kind of child. Prints `ok NAME` for each step and exits 1 at the first
failure.

The two generations of the SDK differ in packages and spellings; an `Sdk` holds what the tour must know of that.
"""

import json
import re
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

STEP_SECONDS = 15  # the longest any one step may take
WATCHED = "test://watched-resource"
OTHER = "test://static-text"
PAGE = "https://example.org/tour"
VERSIONS = {
    "legacy": ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"),
    "modern": ("2026-07-28",),
}
LOG_LEVEL = "io.modelcontextprotocol/logLevel"


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
    listen: Callable[[Any, str], AbstractAsyncContextManager[Any]]  # modern: to list changes and updates of a resource
    uri: Callable[[str], Any]
    prompt: Callable[[str], Any]  # a reference to the prompt of that name
    is_error: Callable[[Any], bool]
    structured: Callable[[Any], Any]  # a result's structured content
    cancel: Callable[[Any, Any], Any]  # tells the server that a call is cancelled, where the SDK does not do so itself


@dataclass
class Tour:
    """One client on its way: the SDK, its session, and where it is."""

    sdk: Sdk
    era: str
    child: str
    client: Client
    session: Any

    @property
    def modern(self) -> bool:
        return self.era == "modern"

    async def call(self, name: str, arguments: dict[str, Any], **options: Any) -> Any:
        return await self.session.call_tool(name, arguments, **options)


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


async def listing(at: Tour) -> None:
    session = at.session
    if not at.modern:
        async with step("ping"):
            await session.send_ping()
    async with step("tools/list"):
        holds("echo" in [tool.name for tool in (await session.list_tools()).tools], "no tool echo")
    async with step("resources/list"):
        uris = [str(resource.uri) for resource in (await session.list_resources()).resources]
        holds(OTHER in uris, uris)
    async with step("prompts/list"):
        names = [prompt.name for prompt in (await session.list_prompts()).prompts]
        holds("test_simple_prompt" in names, names)
    async with step("prompts/get"):
        holds((await session.get_prompt("test_simple_prompt")).messages, "an empty prompt")
    async with step("completion/complete"):
        ref = at.sdk.prompt("test_prompt_with_arguments")
        result = await session.complete(ref, {"name": "arg1", "value": "par"})
        same(result.completion.values, ["paris", "park", "party"])
    async with step("resources/read"):
        holds((await session.read_resource(at.sdk.uri(OTHER))).contents[0].text, "an empty resource")


async def calling(at: Tour) -> None:
    async with step("tools/call"):
        for said in ("hello", 'a\u2028b \U0001f980 "\\n"', "x" * 256 * 1024):
            result = await at.call("echo", {"text": said})
            same(echoed(result), said)
            same(at.sdk.structured(result), {"text": said})
    async with step("thirty-two calls at once"):
        answers: dict[str, str] = {}

        async def echo(said: str) -> None:
            answers[said] = echoed(await at.call("echo", {"text": said}))

        async with anyio.create_task_group() as calls:
            for i in range(32):
                calls.start_soon(echo, f"call {i}")
        same(sorted(answers), sorted(f"call {i}" for i in range(32)))
        same(list(answers.keys()), list(answers.values()))
    async with step("an argument in a header"):
        for region in ("eu", "K\u00f6ln", " a "):
            same(json.loads(text(await at.call("test_x_mcp_header", {"region": region}))), {"region": region})
    async with step("tool error"):
        holds(at.sdk.is_error(await at.call("test_error_handling", {})), "not an error")
    async with step("protocol error"):
        await refused(at, at.session.get_prompt("there is no such prompt"))
        code = await refused(at, at.session.read_resource(at.sdk.uri("test://missing")))
        holds(code in ((-32602,) if at.modern else (-32602, -32002)), code)
    async with step("progress"):
        seen = []

        async def progress(now: float, _total: float | None, _message: str | None) -> None:
            seen.append(now)

        await at.call("count", {"n": 5, "delay_ms": 20}, progress_callback=progress)
        same(seen, [1, 2, 3, 4, 5])
    async with step("logging"):
        if at.modern:
            await at.call("log", {"n": 3, "level": "info"}, meta={LOG_LEVEL: "info"})
            await at.call("log", {"n": 3, "level": "info"})  # which has not asked for any
        else:
            await at.session.set_logging_level("info")
            await at.call("log", {"n": 3, "level": "info"})
            await at.call("log", {"n": 3, "level": "debug"})
        same([params.level for params in (await at.client.logs.reached(3))[:3]], ["info"] * 3)


async def refused(at: Tour, request: Awaitable[Any]) -> int:
    """The code of the JSON-RPC error that the request is to end with."""
    try:
        await request
    except at.sdk.error as error:
        return error.error.code
    raise AssertionError("no error")


async def being_asked(at: Tour) -> None:
    wanted = {"sampling": "sampled by the tour", "elicitation": "tour-name", "roots": "tour-root"}
    for kind, answer in wanted.items():
        async with step(kind):
            said = text(await at.call("ask", {"kind": kind}))
            holds(answer in said, said)
    async with step("elicitation by URL"):
        said = text(await at.call("ask", {"kind": "url"}))
        same(json.loads(said)["action"], "accept")
    async with step("three questions at once"):
        said = text(await at.call("test_input_required_result_multiple_inputs", {}))
        holds(all(answer in said for answer in wanted.values()), said)
    async with step("two questions in a row"):
        said = text(await at.call("test_input_required_result_multi_round", {}))
        holds('"tour-name" likes "tour-color"' in said, said)
    async with step("four calls that ask, at once"):

        async def ask(kind: str) -> None:
            said = text(await at.call("ask", {"kind": kind}))
            holds(wanted[kind] in said, said)

        async with anyio.create_task_group() as calls:
            for kind in (*wanted, "elicitation"):
                calls.start_soon(ask, kind)
    async with step("a prompt that asks"):
        prompt = await at.session.get_prompt("test_input_required_result_prompt")
        holds("tour-context" in prompt.messages[0].content.text, prompt)


async def heard(at: Tour, method: str) -> list[Any]:
    """The params of the notifications of one method that have reached the child."""
    notifications = json.loads(text(await at.call("received", {})))
    return [notification["params"] for notification in notifications if notification["method"] == method]


async def heard_more(at: Tour, method: str, before: int, seconds: float) -> Any:
    """The params of the newest such notification, once there are more than `before`; `None` when the time is up."""
    with anyio.move_on_after(seconds):
        while True:
            now = await heard(at, method)
            if len(now) > before:
                return now[-1] or {}
            await anyio.sleep(0.02)
    return None


async def abandon(at: Tour, begun: Callable[[], Awaitable[Any]], name: str, arguments: Any, **options: Any) -> Any:
    """Begins a call, and leaves it when `begun` is over; returns its id."""
    sent = len(at.client.wire.calls)

    async def call() -> None:
        await at.call(name, arguments, **options)

    async with anyio.create_task_group() as calls:
        calls.start_soon(call)
        await begun()
        await at.sdk.cancel(at.session, at.client.wire.calls[sent])
        calls.cancel_scope.cancel()
    return at.client.wire.calls[sent]


async def cancelling(at: Tour) -> None:
    cancelled = "notifications/cancelled"
    if not at.modern and at.child != "modern":
        async with step("roots changed"):
            await at.session.send_roots_list_changed()
            changed = await heard_more(at, "notifications/roots/list_changed", 0, STEP_SECONDS)
            holds(changed is not None, "the child has not heard of it")
    async with step("cancellation"):
        before = len(await heard(at, cancelled))
        started = Inbox()

        async def progress(now: float, _total: float | None, _message: str | None) -> None:
            started.put(now)

        async def begun() -> None:
            await started.reached(1)

        call = await abandon(at, begun, "count", {"n": 600, "delay_ms": 100}, progress_callback=progress)
        params = await heard_more(at, cancelled, before, STEP_SECONDS)
        holds(params is not None, "the child has not heard of it")
        if not at.modern and at.child != "modern":
            same(params.get("requestId"), call)
    async with step("cancellation of a call that says nothing"):
        before = len(await heard(at, cancelled))
        # Nothing tells when the call has reached the child, and one that has not need not be cancelled there. SDK 1
        # breaks when it is told at its end of a call that has no stream yet, so let it have one.
        for seconds in (0.2, 1, 3) if at.modern else (1.5, 3):
            await abandon(at, lambda: anyio.sleep(seconds), "sleep", {"ms": 600_000})
            if await heard_more(at, cancelled, before, 3) is not None:
                break
        else:
            raise AssertionError("the child has not heard of it")


@asynccontextmanager
async def subscribed(at: Tour) -> AsyncIterator[None]:
    """To everything that the tour wants to hear of."""
    if at.modern:
        async with at.sdk.listen(at.session, WATCHED):
            yield
    else:
        await at.session.subscribe_resource(at.sdk.uri(WATCHED))
        yield
        await at.session.unsubscribe_resource(at.sdk.uri(WATCHED))


async def being_told(at: Tour) -> None:
    client = at.client
    async with AsyncExitStack() as stack:
        async with step("subscribe"):
            await stack.enter_async_context(subscribed(at))
        async with step("resource updated"):
            await at.call("touch_resource", {"uri": OTHER})
            await at.call("touch_resource", {"uri": WATCHED})
            same(str((await client.updates.reached(1))[0].uri), WATCHED)
        async with step("list changed, while a call is open"):
            await at.call("test_trigger_tool_change", {})
            await client.tool_changes.reached(1)
        async with step("list changed, while none is"):
            await at.call("change_after", {"list": "prompts", "ms": 100})
            await client.prompt_changes.reached(1)
        async with step("nothing has come twice"):
            inboxes = (client.logs, client.updates, client.tool_changes, client.prompt_changes)
            same([len(inbox.seen) for inbox in inboxes], [3, 1, 1, 1])
    async with step("unsubscribe"):
        before = -1  # the server may learn a moment later that a stream is closed
        while before < len(client.updates.seen):
            before = len(client.updates.seen)
            await at.call("touch_resource", {"uri": WATCHED})
            await anyio.sleep(0.1)


async def closed(at: Tour, url: str, http: Any) -> None:
    json_headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    if at.modern:
        for method in ("GET", "DELETE"):
            version = {"MCP-Protocol-Version": VERSIONS["modern"][0]}
            same((await http.request(method, url, headers=json_headers | version)).status_code, 405)
    else:
        session = {"Mcp-Session-Id": at.client.wire.session}
        gone = await http.post(url, headers=json_headers | session, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
        same(gone.status_code, 404)


async def tour(sdk: Sdk, url: str, token: str, era: str, child: str) -> None:
    client = Client()
    async with sdk.http.AsyncClient(
        headers={"Authorization": f"Bearer {token}"},
        timeout=sdk.http.Timeout(STEP_SECONDS, read=300),
        event_hooks=client.wire.hooks(),
    ) as http:
        async with sdk.connect(url, http, client) as (session, version):
            at = Tour(sdk, era, child, client, session)
            async with step("connect"):
                holds(version in VERSIONS[era], f"protocol version {version}")
                if at.modern:
                    same(client.wire.session, None)
                else:
                    holds(re.fullmatch("[0-9a-f]{48}", client.wire.session or ""), client.wire.session)
            await listing(at)
            await calling(at)
            await being_asked(at)
            await cancelling(at)
            await being_told(at)
        async with step("close"):
            await closed(at, url, http)


def reasons(error: BaseException) -> list[BaseException]:
    """The errors in a group, without the groups."""
    if isinstance(error, BaseExceptionGroup):
        return [reason for inner in error.exceptions for reason in reasons(inner)]
    return [error]


def main(sdk: Sdk) -> None:
    try:
        anyio.run(tour, sdk, *sys.argv[1:5])
    except Exception as error:
        for reason in reasons(error):
            why = "".join(traceback.format_exception(reason, limit=-3, chain=False))
            print(f"FAILED {Steps.now}: {why}", flush=True)
        raise SystemExit(1) from None
