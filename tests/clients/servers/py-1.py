"""A server on `mcp` 1.x (FastMCP), the first generation of the Python SDK: legacy, on stdio.

It offers what all the small servers beside it do, and `visit.mjs` asks for: tools that report progress, ask the user,
ask the model, say that the one resource has changed, and bring a tool more. Runs in the virtual environment of
`python-1`.
"""

from typing import Any

import anyio
from mcp.server.fastmcp import Context, FastMCP
from mcp.server.lowlevel import NotificationOptions
from mcp.server.stdio import stdio_server
from mcp.types import SamplingMessage, TextContent
from pydantic import AnyUrl, BaseModel

NOTE = AnyUrl("note://today")
mcp = FastMCP("py-1", log_level="ERROR")
subscribed: set[AnyUrl] = set()


class Who(BaseModel):
    name: str


@mcp.tool(structured_output=False)
async def count(n: int, ctx: Context[Any, Any, Any]) -> str:
    for now in range(1, n + 1):
        await ctx.report_progress(now, n)
    return f"counted to {n}"


@mcp.tool(structured_output=False)
async def greet(ctx: Context[Any, Any, Any]) -> str:
    answer = await ctx.elicit("What is your name?", Who)
    return f"hello {answer.data.name}" if answer.action == "accept" else answer.action


@mcp.tool(structured_output=False)
async def think(ctx: Context[Any, Any, Any]) -> str:
    question = SamplingMessage(role="user", content=TextContent(type="text", text="Say something."))
    answer = await ctx.session.create_message([question], max_tokens=10)
    return f"thought {answer.content.text}"


@mcp.tool(structured_output=False)
async def touch(ctx: Context[Any, Any, Any]) -> str:
    if NOTE in subscribed:
        await ctx.session.send_resource_updated(NOTE)
    return "touched"


@mcp.tool(structured_output=False)
async def grow(ctx: Context[Any, Any, Any]) -> str:
    mcp.add_tool(lambda: "a tool that has come later", name="grown")
    await ctx.session.send_tool_list_changed()
    return "grown"


@mcp.resource(str(NOTE))
def today() -> str:
    return "a note"


async def main() -> None:
    # FastMCP itself knows neither of subscriptions nor of a list that changes: what is below it does.
    server = mcp._mcp_server

    @server.subscribe_resource()
    async def subscribe(uri: AnyUrl) -> None:
        subscribed.add(uri)

    @server.unsubscribe_resource()
    async def unsubscribe(uri: AnyUrl) -> None:
        subscribed.discard(uri)

    options = server.create_initialization_options(NotificationOptions(tools_changed=True))
    options.capabilities.resources.subscribe = True
    async with stdio_server() as (read, write):
        await server.run(read, write, options)


anyio.run(main)
