"""`mcp` 2.x, the second generation of the Python SDK, on the trip in `trip.py`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

from trip import Sdk, main


@asynccontextmanager
async def connect(url: str, http: httpx2.AsyncClient) -> AsyncIterator[Client]:
    async with Client(streamable_http_client(url, http_client=http)) as session:
        yield session


main(
    Sdk(
        http=httpx2,
        provider=OAuthClientProvider,
        metadata=OAuthClientMetadata,
        result=lambda found: AuthorizationCodeResult(**found),
        connect=connect,
    )
)
