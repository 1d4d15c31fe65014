"""The broker behind proxies: `proxies.py TOKEN OTHER-TOKEN LOG NAME=PORT...`, where NAME `broker` is the broker itself.

What a client gets through a proxy is compared with what it gets without one. Started by `scripts/proxies`, which
configures the proxies with what the README says.
"""

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from wire import (
    HOST, Answer, Client, Failed, Target, call, check, events, message, messages, vanish,
)

SILENCE = 130  # seconds; more than any proxy's usual timeout
LARGE = 3_900_000  # bytes, below the limit of 4 MiB
TOO_LARGE = 5_900_000
IN_FLIGHT = 4  # what scripts/proxies sets max_in_flight to
GONE_SECONDS = (0.2, 1.0, 5.0)  # within which the broker must notice, if need be
PARALLEL, CALLS = 12, 40
# What a proxy may say otherwise than the broker.
OWN_FIELDS = {"date", "server", "connection", "keep-alive", "via", "alt-svc", "mcp-session-id", "transfer-encoding"}
UNKNOWN_SESSION = "0" * 48


@dataclass(frozen=True)
class Scene:
    log: str
    token: str
    other_token: str

    def client(self, target: Target) -> Client:
        client = Client(target, self.token)
        client.open()
        return client

    def log_text(self) -> str:
        with open(self.log, errors="replace") as log:
            return log.read()


# --- Statuses and bodies ----------------------------------------------------------------------------------------------


def statuses(scene: Scene, target: Target) -> Iterator[tuple[str, int, Answer]]:
    """Each status that the contract knows: what leads to it, which it is, and the answer."""
    client = scene.client(target)
    ping = message("ping", 1)

    def post(body: bytes = ping, **fields: str) -> Answer:
        return client.post(body, fields={name.replace("_", "-"): value for name, value in fields.items()})

    yield "a request", 200, post()
    yield "an error of the server", 200, post(message("no/such", 2))
    yield "a notification", 202, post(message("notifications/cancelled", requestId="none"))
    yield "preflight", 204, client.send("OPTIONS", fields={"Origin": f"https://{HOST}"})
    yield "not JSON", 400, post(b'{"jsonrpc":')
    yield "no session id", 400, post(Mcp_Session_Id="")
    yield "a version that nobody knows", 400, post(MCP_Protocol_Version="1999-01-01")
    yield "no token", 401, post(Authorization="")
    yield "a wrong token", 401, post(Authorization="Bearer nobody")
    yield "a foreign page", 403, post(Origin="https://evil.example")
    yield "another user's session", 403, post(Authorization=f"Bearer {scene.other_token}")
    yield "an unknown session", 404, post(Mcp_Session_Id=UNKNOWN_SESSION)
    yield "an unknown path", 404, client.send("GET", path="/nothing")
    yield "another method", 405, client.send("PUT", b"{}")
    yield "a stream that is over", 405, client.send("GET", fields={"Last-Event-ID": "999-1"})
    yield "an Accept that is too narrow", 406, post(Accept="application/json")
    yield "a body that is too large", 413, post(b" " * TOO_LARGE)
    yield "another Content-Type", 415, post(Content_Type="text/plain")
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        sleep = [call(10 + no, "sleep", ms=3000) for no in range(IN_FLIGHT)]
        calls = list(pool.map(lambda body: client.request("POST", body), sleep))
        yield "too many requests in flight", 429, post(message("ping", 99))
        ends = list(pool.map(lambda response: list(messages(events(response))), calls))
    check(all(end[-1].json()["id"] == 10 + no for no, end in enumerate(ends)), "calls lost")
    yield "the end of a session", 204, client.send("DELETE")


def large_bodies(scene: Scene, target: Target) -> Iterator[tuple[str, int, Answer]]:
    client = scene.client(target)
    text = "".join(f"{no:07}" for no in range(LARGE // 7))
    yield "a large body up and down", 200, client.post(call(1, "echo", text=text))
    yield "a larger body down", 200, client.post(call(2, "big", bytes=3 * LARGE))
    chunks = iter([call(3, "echo", text=text)[at : at + 10_000] for at in range(0, LARGE + 200, 10_000)])
    fields = {"Transfer-Encoding": "chunked"}
    yield "a large body in chunks", 200, client.send("POST", chunks, fields, chunked=True)
    client.close()


def is_stream(answer: Answer) -> bool:
    return answer.fields.get("content-type") == "text/event-stream"


def payload(answer: Answer) -> bytes:
    """The body; of a stream, which a slow answer becomes, the message in it."""
    if not is_stream(answer):
        return answer.body
    lines = answer.body.split(b"\n")
    return b"\n".join(line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: "))


Cases = Callable[[Scene, Target], Iterator[tuple[str, int, Answer]]]


def compare(scene: Scene, direct: Target, proxy: Target, cases: Cases) -> str:
    """Holds each answer through the proxy to the one without."""
    count = 0
    for (what, status, plain), (_, _, proxied) in zip(cases(scene, direct), cases(scene, proxy), strict=True):
        check(plain.status == status, f"{what}: {plain.status} without a proxy")
        check(proxied.status == status, f"{what}: {proxied.status} through {proxy.name}")
        count += 1
        if status == 413:
            continue  # the proxy's own answer: it has the same limit
        digests = [hashlib.sha256(payload(answer)).hexdigest() for answer in (plain, proxied)]
        check(digests[0] == digests[1], f"{what}: {proxy.name} gave {proxied.body[:200]!r}")
        if is_stream(plain) or is_stream(proxied):
            continue
        shown = [{k: v for k, v in it.fields.items() if k not in OWN_FIELDS} for it in (plain, proxied)]
        if status in (202, 204):
            for fields in shown:
                fields.pop("content-length", None)  # RFC 9110 section 8.6: 204 has none
        check(shown[0] == shown[1], f"{what}: {proxy.name} changed {shown[0]} to {shown[1]}")
    return f"{count} answers as without a proxy"


def same_answers(scene: Scene, direct: Target, proxy: Target) -> str:
    return compare(scene, direct, proxy, statuses)


def same_bodies(scene: Scene, direct: Target, proxy: Target) -> str:
    return compare(scene, direct, proxy, large_bodies)


# --- Streams ----------------------------------------------------------------------------------------------------------


def one_by_one(times: list[float], steps: int, delay: float) -> str:
    gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
    check(len(times) > steps, f"{len(times)} events")
    check(all(gap > delay / 2 for gap in gaps[: steps - 1]), f"events came together: {gaps}")
    return f"{steps} events, {min(gaps[: steps - 1]) * 1000:.0f} ms apart and more"


def streams_flow(scene: Scene, _: Target, proxy: Target) -> str:
    client = scene.client(proxy)
    parts = message("tools/call", 1, name="count", arguments={"n": 5, "delay_ms": 300}, _meta={"progressToken": 1})
    response = client.request("POST", parts)
    said = one_by_one([event.at for event in messages(events(response))], 5, 0.3)
    client.close()
    return said


def streams_flow_over_http_2(scene: Scene, _: Target, proxy: Target) -> str:
    client = scene.client(proxy)
    parts = message("tools/call", 1, name="count", arguments={"n": 5, "delay_ms": 300}, _meta={"progressToken": 1})
    fields = [part for name, value in client.fields.items() for part in ("-H", f"{name}: {value}")]
    resolve = f"{HOST}:{proxy.port}:127.0.0.1"
    command = ["curl", "-sSNk", "--http2", "-m", "20", "--resolve", resolve, "-w", "\n%{http_version}\n"]
    command += [*fields, "-d", parts.decode(), f"https://{HOST}:{proxy.port}/mcp"]
    times, last = [], ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        for line in curl.stdout or []:
            if line.startswith("data: {"):
                times.append(time.monotonic())
            last = line.strip() or last
    check(last == "2", f"HTTP/{last}, not 2")
    client.close()
    return one_by_one(times, 5, 0.3)


def silence_is_no_end(scene: Scene, _: Target, proxy: Target) -> str:
    client = scene.client(proxy)
    stream = client.listen(timeout=60)
    slow = client.request("POST", call(1, "sleep", ms=SILENCE * 1000), timeout=60)
    answers: list[str] = []
    reader = threading.Thread(target=lambda: answers.extend(it.data or "" for it in messages(events(slow))))
    reader.start()
    comments, end = 0, time.monotonic() + SILENCE
    while time.monotonic() < end:
        event = next(stream)
        check(event.data is None, f"something was said: {event}")
        comments += 1
    reader.join(30)
    check(len(answers) == 1 and "slept" in answers[0], f"{answers} of the slow call")
    client.post(call(2, "notify", method="notifications/tools/list_changed"))
    check("list_changed" in (next(messages(stream)).data or ""), "not the notification")
    stream.close()
    return f"a GET and a call lived through {SILENCE} s, with {comments} comments"


def gone_is_noticed(scene: Scene, _: Target, proxy: Target) -> str:
    """What the server says while the session's stream is open goes there; when it is known to be gone, to the call."""
    method = "notifications/resources/list_changed"
    for seconds in GONE_SECONDS:
        client = scene.client(proxy)
        connection = proxy.connect()
        check(client.request("GET", connection=connection).status == 200, "no stream")
        answer = client.post(call(1, "notify", method=method))
        check(method.encode() not in answer.body, "a stream is open, and the call got what it should get")
        vanish(connection)
        time.sleep(seconds)
        answer = client.post(call(1, "notify", method=method))
        client.close()
        if method.encode() in answer.body:
            return f"noticed within {seconds:.1f} s"
    raise Failed(f"not noticed within {GONE_SECONDS[-1]} s")


def answers_are_not_mixed(scene: Scene, _: Target, proxy: Target) -> str:
    stop = threading.Event()

    def leave_early() -> int:
        """Others give up in the middle, so that what the proxy reuses is what they left."""
        client, left = scene.client(proxy), 0
        while not stop.is_set():
            connection = proxy.connect()
            connection.request("POST", "/mcp", call(f"left-{left}", "big", bytes=200_000), client.fields)
            time.sleep(0.003 * (left % 5))
            vanish(connection)
            left += 1
        client.close()
        return left

    def use(no: int) -> None:
        client = scene.client(proxy)
        connection = proxy.connect()
        for at in range(CALLS):
            mark = f"{no}.{at}." + "x" * (at * 397 % 9000)
            answer = client.post(call(mark[:20], "echo", mark=mark), connection=connection)
            result = answer.json()["result"]["structuredContent"]
            check(answer.json()["id"] == mark[:20] and result == {"mark": mark}, "somebody else's answer")
        client.close()

    with ThreadPoolExecutor(PARALLEL + 1) as pool:
        early = pool.submit(leave_early)
        try:
            list(pool.map(use, range(PARALLEL)))
        finally:
            stop.set()
    check(early.result() > 0, "nobody left early")
    return f"{PARALLEL * CALLS} marked calls in parallel, {early.result()} abandoned beside them"


CHECKS = (
    same_answers, same_bodies, streams_flow, streams_flow_over_http_2, gone_is_noticed, answers_are_not_mixed,
)


def main() -> int:
    token, other_token, log, *places = sys.argv[1:]
    scene = Scene(log, token, other_token)
    named = [place.split("=") for place in places]
    direct, *proxies = [Target(name, int(port), tls=name != "broker") for name, port in named]
    failed = 0

    def report(name: str, proxy: Target, run: Callable[[], str]) -> None:
        nonlocal failed
        title = f"{proxy.name}: {name.replace('_', ' ')}"
        try:
            print(f"ok {title}: {run()}", flush=True)
        except (Failed, OSError, ValueError, KeyError, StopIteration) as why:
            failed += 1
            print(f"FAILED {title}: {type(why).__name__}: {why}", flush=True)

    with ThreadPoolExecutor(len(proxies)) as pool:
        silent = [
            pool.submit(report, "silence_is_no_end", proxy, lambda proxy=proxy: silence_is_no_end(scene, direct, proxy))
            for proxy in proxies
        ]
        for proxy in proxies:
            for run in CHECKS:
                report(run.__name__, proxy, lambda run=run, proxy=proxy: run(scene, direct, proxy))
        for it in silent:
            it.result()
    if failed:
        print("--- the broker's log:", *scene.log_text().splitlines()[-20:], sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
