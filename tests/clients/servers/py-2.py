"""A server on `mcp` 2.x (MCPServer), the second generation of the Python SDK: both eras, on stdio.

The first request decides for the era: after a `server/discover` it refuses to `initialize`. It offers what `py-1.py`
does; a tool that asks says so in its signature, and the SDK does it as the client's era wants. Runs in the virtual
environment of `python-2`.
"""

import warnings
from typing import Annotated, Any

import anyio
from mcp.server.lowlevel import NotificationOptions
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve, Sample
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.types import (
    CreateMessageResult,
    EmptyResult,
    SamplingMessage,
    SubscribeRequestParams,
    TextContent,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel

warnings.simplefilter("ignore", MCPDeprecationWarning)  # what the modern era has dropped is what the legacy era uses

NOTE = "note://today"
mcp = MCPServer("py-2", version="1.0.0", log_level="ERROR")
subscribed: set[str] = set()


class Who(BaseModel):
    name: str


def who() -> Elicit[Who]:
    return Elicit("What is your name?", Who)


def thought() -> Sample:
    question = SamplingMessage(role="user", content=TextContent(type="text", text="Say something."))
    return Sample([question], max_tokens=10)


@mcp.tool(structured_output=False)
async def count(n: int, ctx: Context) -> str:
    for now in range(1, n + 1):
        await ctx.report_progress(now, n)
    return f"counted to {n}"


@mcp.tool(structured_output=False)
async def greet(answer: Annotated[Who, Resolve(who)]) -> str:
    return f"hello {answer.name}"


@mcp.tool(structured_output=False)
async def think(answer: Annotated[CreateMessageResult, Resolve(thought)]) -> str:
    return f"thought {answer.content.text}"


@mcp.tool(structured_output=False)
async def touch(ctx: Context) -> str:
    await ctx.notify_resource_updated(NOTE)
    if NOTE in subscribed:
        await ctx.session.send_resource_updated(NOTE)
    return "touched"


@mcp.tool(structured_output=False)
async def grow(ctx: Context) -> str:
    mcp.add_tool(lambda: "a tool that has come later", name="grown")
    await ctx.notify_tools_changed()
    if ctx.protocol_version != "2026-07-28":
        await ctx.session.send_tool_list_changed()
    return "grown"


@mcp.resource(NOTE)
def today() -> str:
    return "a note"


async def subscribe(_ctx: Any, params: SubscribeRequestParams) -> EmptyResult:
    subscribed.add(str(params.uri))
    return EmptyResult()


async def unsubscribe(_ctx: Any, params: UnsubscribeRequestParams) -> EmptyResult:
    subscribed.discard(str(params.uri))
    return EmptyResult()


async def main() -> None:
    # MCPServer itself knows nothing of the legacy era's subscriptions: what is below it does.
    server = mcp._lowlevel_server
    server.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
    server.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options(NotificationOptions(tools_changed=True)))


anyio.run(main)
