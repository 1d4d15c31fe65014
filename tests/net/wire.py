"""What the scripts of this directory share: MCP over plain HTTP connections, and a look at the broker's process.

Only the standard library, so that nothing stands between a test and the bytes. Neighbours: `proxies.py`, `ghosts.py`
and `idle.py`, which `scripts/proxies`, `scripts/ghosts` and `scripts/idle` start.
"""

import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

HOST = "mcp.example.org"
PROTOCOL = "2025-11-25"
PATIENCE = 30.0  # seconds that anything may take that should happen at once


class Failed(Exception):
    """What a test expected has not come."""


def check(condition: object, what: str) -> None:
    if not condition:
        raise Failed(what)


def eventually(what: str, condition: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Waits until the condition holds; returns how long that took."""
    began = time.monotonic()
    while not condition():
        check(time.monotonic() < began + seconds, f"not within {seconds:.0f} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - began


@dataclass(frozen=True)
class Target:
    """Where clients connect: the broker itself, or a proxy in front of it."""

    name: str
    port: int
    tls: bool = False
    address: str = "127.0.0.1"
    host: str = HOST

    def connect(self, timeout: float = PATIENCE) -> http.client.HTTPConnection:
        """A connection that is open, and is not opened again behind our back."""
        sock: socket.socket = socket.create_connection((self.address, self.port), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # of a certificate that was made for this test
            sock = context.wrap_socket(sock, server_hostname=self.host)
        connection = http.client.HTTPConnection(self.host)
        connection.sock = sock
        connection.auto_open = 0
        return connection


@dataclass(frozen=True)
class Answer:
    status: int
    fields: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Event:
    """An event of a stream, or a comment, with the time when its end came."""

    at: float
    data: str | None
    comment: str | None = None

    def json(self) -> Any:
        return json.loads(self.data or "null")


def message(method: str, id: Any = None, **params: Any) -> bytes:
    """A request, or a notification if there is no id."""
    parts = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(parts if id is None else {**parts, "id": id}).encode()


def call(id: Any, tool: str, **arguments: Any) -> bytes:
    return message("tools/call", id, name=tool, arguments=arguments)


class Client:
    """A user of the broker with at most one session. Each request has a connection of its own unless one is given."""

    def __init__(self, target: Target, token: str | None = None) -> None:
        self.target = target
        self.fields = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        if token:
            self.fields["Authorization"] = f"Bearer {token}"

    def request(
        self,
        method: str,
        body: Any = None,
        fields: dict[str, str] | None = None,
        path: str = "/mcp",
        connection: http.client.HTTPConnection | None = None,
        timeout: float = PATIENCE,
        chunked: bool = False,
    ) -> http.client.HTTPResponse:
        connection = connection or self.target.connect(timeout)
        fields = {name: value for name, value in {**self.fields, **(fields or {})}.items() if value}
        try:
            connection.request(method, path, body, fields, encode_chunked=chunked)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            pass  # who does not want the body may say so before the end of it
        return connection.getresponse()

    def send(self, method: str, *args: Any, **kwargs: Any) -> Answer:
        """Sends a request, and reads the whole answer. Closes the connection unless it was given one."""
        given = kwargs.pop("connection", None)
        connection = given or self.target.connect(kwargs.get("timeout", PATIENCE))
        response = self.request(method, *args, connection=connection, **kwargs)
        fields = {name.lower(): value for name, value in response.getheaders()}
        answer = Answer(response.status, fields, response.read())
        if not given:
            connection.close()
        return answer

    def post(self, body: bytes, **kwargs: Any) -> Answer:
        return self.send("POST", body, **kwargs)

    def open(self, **kwargs: Any) -> None:
        """Opens a session, ready to be used."""
        info = {"name": "net", "version": "1"}
        parts = message("initialize", 0, protocolVersion=PROTOCOL, capabilities={}, clientInfo=info)
        answer = self.post(parts, **kwargs)
        check(answer.status == 200, f"initialize: {answer}")
        self.fields["Mcp-Session-Id"] = answer.fields["mcp-session-id"]
        self.fields["MCP-Protocol-Version"] = PROTOCOL
        answer = self.post(message("notifications/initialized"), **kwargs)
        check(answer.status == 202, f"initialized: {answer}")

    def close(self) -> None:
        answer = self.send("DELETE")
        check(answer.status == 204, f"DELETE: {answer}")

    def listen(self, timeout: float = PATIENCE) -> Iterator[Event]:
        """The session's own stream; its connection is closed with the iterator."""
        response = self.request("GET", timeout=timeout)
        check(response.status == 200, f"GET: {response.status}")
        return events(response)


def vanish(connection: http.client.HTTPConnection) -> None:
    """Closes a connection in the middle of whatever it carries."""
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()


def events(response: http.client.HTTPResponse) -> Iterator[Event]:
    """The events of a stream as they come, until it ends or is silent for as long as its connection may be."""
    kind = response.getheader("Content-Type")
    check(kind == "text/event-stream", f"a stream was expected, not {kind}")
    data: str | None = None
    try:
        while line := response.readline():
            text = line.decode().removesuffix("\n")
            if text.startswith(":"):
                yield Event(time.monotonic(), None, text[1:].strip())
            elif text.startswith("data:"):
                data = text.removeprefix("data:").strip()
            elif not text:
                if data:
                    yield Event(time.monotonic(), data)
                data = None
    finally:
        response.close()


def messages(stream: Iterator[Event]) -> Iterator[Event]:
    return (event for event in stream if event.data is not None)


@dataclass(frozen=True)
class Process:
    """The broker's process."""

    pid: int

    def tasks(self) -> dict[str, str]:
        """Its threads: their names by their ids."""
        found = {}
        for task in os.listdir(f"/proc/{self.pid}/task"):
            try:
                with open(f"/proc/{self.pid}/task/{task}/comm") as comm:
                    found[task] = comm.read().strip()
            except (FileNotFoundError, ProcessLookupError):
                pass  # it has just ended
        return found

    def connections(self) -> set[str]:
        """The names of the threads that serve a client's connection each."""
        return {name for name in self.tasks().values() if name.startswith("c:")}

    def cpu(self) -> dict[str, int]:
        """What each of its threads has spent, in nanoseconds."""
        spent = {}
        for task in self.tasks():
            try:
                with open(f"/proc/{self.pid}/task/{task}/schedstat") as stat:
                    spent[task] = int(stat.read().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                pass
        return spent

    def pss_kib(self) -> int:
        """Its share of memory; of what it shares with others, its part."""
        with open(f"/proc/{self.pid}/smaps_rollup") as rollup:
            return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))

    def children(self) -> int:
        """How many processes it has started that are still there."""
        count = 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    count += int(stat.read().rpartition(")")[2].split()[1]) == self.pid
            except (FileNotFoundError, ProcessLookupError):
                pass
        return count
