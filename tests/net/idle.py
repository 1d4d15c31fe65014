"""A thousand sessions that say nothing, each with its stream open: `idle.py PID PORT TOKEN...`.

Holds the broker to what an idle session may cost: memory of its own, processor time, and no stream lost. Started by
`scripts/idle`.
"""

import selectors
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from wire import Client, Failed, Process, Target, check, message

SESSIONS = 1000
OPENING_AT_A_TIME = 8
MEMORY_KIB = 64  # of the broker's own, a session
CPU_PERCENT = 1.0  # of one core, all sessions together
WATCHED_SECONDS = 20.0  # longer than the time between two heartbeats
SETTLED_SECONDS = 2.0


class Stream:
    """A session's GET; what came of it so far."""

    def __init__(self, client: Client) -> None:
        self.connection = client.target.connect()
        fields = {**client.fields, "Host": client.target.host}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.connection.sock.sendall(f"GET /mcp HTTP/1.1\r\n{lines}\r\n".encode())
        self.heartbeats = 0
        self.has_ended = False
        self.head = b""

    def read(self) -> None:
        got = self.connection.sock.recv(65536)
        self.has_ended |= not got or b"0\r\n\r\n" in got
        if b"\r\n\r\n" not in self.head:
            self.head += got
        elif b": \n\n" in got:
            self.heartbeats += 1


def read_for(streams: list[Stream], seconds: float) -> None:
    selector = selectors.DefaultSelector()
    for stream in streams:
        selector.register(stream.connection.sock, selectors.EVENT_READ, stream)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            key.data.read()
            if key.data.has_ended:
                selector.unregister(key.data.connection.sock)
    selector.close()


def ping(client: Client) -> None:
    answer = client.post(message("ping", 1))
    check(answer.status == 200 and answer.json()["result"] == {}, f"ping: {answer}")


def main() -> None:
    broker, target = Process(int(sys.argv[1])), Target("broker", int(sys.argv[2]), host="localhost")
    tokens = sys.argv[3:]
    first = Client(target, tokens[0])
    first.open()
    ping(first)
    first.close()
    before = broker.pss_kib()

    began = time.monotonic()
    clients = [Client(target, tokens[no % len(tokens)]) for no in range(SESSIONS)]
    with ThreadPoolExecutor(OPENING_AT_A_TIME) as pool:
        list(pool.map(Client.open, clients))
        streams = list(pool.map(Stream, clients))
        list(pool.map(ping, clients))
    children = broker.children()
    check(children >= SESSIONS, f"{children} processes")
    print(f"ok {SESSIONS} sessions, each served, in {time.monotonic() - began:.1f} s")

    read_for(streams, SETTLED_SECONDS)
    check(all(b" 200 " in stream.head for stream in streams), "a stream was refused")
    spent, began = broker.cpu(), time.monotonic()
    read_for(streams, WATCHED_SECONDS)
    # Of each thread what is new: one that ends takes all that it ever spent with it.
    names, share = broker.tasks(), Counter()
    for task, after in broker.cpu().items():
        kind = names.get(task, "?").partition(":")[0]
        share[kind] += 100 * (after - spent.get(task, 0)) / 1e9 / (time.monotonic() - began)
    percent = share.total()
    each = (broker.pss_kib() - before) / SESSIONS
    threads = len(broker.tasks())
    print(f"   {each:.1f} KiB of the broker's own memory a session, {threads} threads")
    kinds = ", ".join(f"{kind} {part:.2f}" for kind, part in share.most_common(4))
    print(f"   {percent:.2f} % of a core for all of them, heartbeats included; by threads: {kinds}")
    silent = sum(stream.heartbeats == 0 or stream.has_ended for stream in streams)
    check(silent == 0, f"{silent} streams without a heartbeat")
    print("ok every stream is alive: each got a heartbeat")
    with ThreadPoolExecutor(OPENING_AT_A_TIME) as pool:
        list(pool.map(ping, clients))
    print("ok each session served again")
    check(percent < CPU_PERCENT, f"idle sessions take {percent:.2f} % of a core")
    check(each <= MEMORY_KIB, f"a session takes {each:.1f} KiB")
    print(f"ok at most {MEMORY_KIB} KiB a session, less than {CPU_PERCENT:.0f} % of a core")


if __name__ == "__main__":
    try:
        main()
    except Failed as why:
        sys.exit(f"FAILED {why}")
