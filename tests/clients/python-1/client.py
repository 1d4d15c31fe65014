"""`mcp` 1.x, the first generation of the Python SDK.

`python client.py URL TOKEN ERA CHILD`, with `tour.py` on PYTHONPATH.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from mcp import ClientSession, McpError, types
from mcp.client.streamable_http import streamable_http_client
from pydantic import AnyUrl

from tour import PAGE, Client, Sdk, main


async def sample(_context: Any, _params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    content = types.TextContent(type="text", text="sampled by the tour")
    return types.CreateMessageResult(role="assistant", model="none", content=content)


async def elicit(_context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
    if params.mode == "url":
        return types.ElicitResult(action="accept" if params.url == PAGE else "decline")
    content = {name: f"tour-{name}" for name in params.requestedSchema["properties"]}
    return types.ElicitResult(action="accept", content=content)


async def roots(_context: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri="file:///tour-root", name="tour")])


@asynccontextmanager
async def connect(url: str, http: httpx.AsyncClient, client: Client) -> AsyncIterator[tuple[ClientSession, str]]:
    async def logged(params: types.LoggingMessageNotificationParams) -> None:
        client.logs.put(params)

    async def told(message: Any) -> None:
        match getattr(message, "root", message):
            case types.ResourceUpdatedNotification(params=params):
                client.updates.put(params)
            case types.ToolListChangedNotification() as changed:
                client.tool_changes.put(changed)
            case types.PromptListChangedNotification() as changed:
                client.prompt_changes.put(changed)

    async with (
        streamable_http_client(url, http_client=http) as (read, write, _),
        ClientSession(
            read,
            write,
            sampling_callback=sample,
            elicitation_callback=elicit,
            list_roots_callback=roots,
            logging_callback=logged,
            message_handler=told,
        ) as session,
    ):
        yield session, (await session.initialize()).protocolVersion


async def cancel(session: ClientSession, request: int) -> None:
    """This generation does not announce a cancelled call itself."""
    params = types.CancelledNotificationParams(requestId=request, reason="enough")
    await session.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))


def listen(_session: ClientSession, _uri: str) -> Any:
    raise NotImplementedError("this generation knows the legacy era only")


main(
    Sdk(
        http=httpx,
        error=McpError,
        connect=connect,
        listen=listen,
        uri=AnyUrl,
        prompt=lambda name: types.PromptReference(type="ref/prompt", name=name),
        is_error=lambda result: result.isError,
        structured=lambda result: result.structuredContent,
        cancel=cancel,
    )
)
