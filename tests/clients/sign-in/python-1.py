"""`mcp` 1.x, the first generation of the Python SDK, on the trip in `trip.py`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

from trip import Sdk, main


@asynccontextmanager
async def connect(url: str, http: httpx.AsyncClient) -> AsyncIterator[ClientSession]:
    async with (
        streamable_http_client(url, http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        yield session


main(
    Sdk(
        http=httpx,
        provider=OAuthClientProvider,
        metadata=OAuthClientMetadata,
        result=lambda found: (found["code"], found.get("state")),
        connect=connect,
    )
)
