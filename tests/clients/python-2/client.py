"""`mcp` 2.x, the second generation of the Python SDK.

`python client.py URL TOKEN ERA CHILD`, with `tour.py` on PYTHONPATH.

By default it asks for the modern era first (`server/discover`) and must be told, in words it understands, to fall back.
"""

import warnings
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
from mcp import Client as McpClient
from mcp import MCPError, types
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning

from tour import PAGE, Client, Sdk, main

warnings.simplefilter("ignore", MCPDeprecationWarning)  # what the modern era has dropped is what the legacy era uses


async def sample(_context: Any, _params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    content = types.TextContent(type="text", text="sampled by the tour")
    return types.CreateMessageResult(role="assistant", model="none", content=content)


async def elicit(_context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
    if params.mode == "url":
        return types.ElicitResult(action="accept" if params.url == PAGE else "decline")
    content = {name: f"tour-{name}" for name in params.requested_schema["properties"]}
    return types.ElicitResult(action="accept", content=content)


async def roots(_context: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri="file:///tour-root", name="tour")])


@asynccontextmanager
async def connect(url: str, http: httpx2.AsyncClient, client: Client) -> AsyncIterator[tuple[McpClient, str]]:
    async def logged(params: types.LoggingMessageNotificationParams) -> None:
        client.logs.put(params)

    async def told(message: Any) -> None:
        match message:
            case types.ResourceUpdatedNotification(params=params):
                client.updates.put(params)
            case types.ToolListChangedNotification() as changed:
                client.tool_changes.put(changed)
            case types.PromptListChangedNotification() as changed:
                client.prompt_changes.put(changed)

    async with McpClient(
        streamable_http_client(url, http_client=http),
        sampling_callback=sample,
        elicitation_callback=elicit,
        list_roots_callback=roots,
        logging_callback=logged,
        message_handler=told,
    ) as session:
        yield session, session.protocol_version


async def cancel(_session: McpClient, _request: str | int) -> None:
    """This generation announces a cancelled call itself."""


def listen(session: McpClient, uri: str) -> AbstractAsyncContextManager[Any]:
    return session.listen(tools_list_changed=True, prompts_list_changed=True, resource_subscriptions=[uri])


main(
    Sdk(
        http=httpx2,
        error=MCPError,
        connect=connect,
        listen=listen,
        uri=str,
        prompt=lambda name: types.PromptReference(type="ref/prompt", name=name),
        is_error=lambda result: result.is_error,
        structured=lambda result: result.structured_content,
        cancel=cancel,
    )
)
