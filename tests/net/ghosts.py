"""Clients that vanish without a word, no FIN and no RST: `ghosts.py PID ADDRESS PORT TOKEN NETNS LINK`.

The clients live in the network namespace NETNS, whose end of the wire is LINK; it is taken down under them. The broker
must then notice by itself, and free what it holds for each. Started by `scripts/ghosts`, which makes and removes the
namespace. Called as `ghosts.py client ADDRESS PORT TOKEN`, it is those clients.
"""

import subprocess
import sys
import time

from wire import Client, Process, Target, call, check, eventually, message

# Within what time each ghost must be noticed, in seconds: heartbeats come each 15 s and must be acknowledged within 30 s;
# a connection without a request is closed after 75 s in any case.
LIMITS = {"GET": 50, "POST": 50, "idle": 85}
SLEEP_MS = 600_000


def be_clients(target: Target, token: str) -> None:
    """Opens one connection of each kind, and tells so after each; then waits for its end."""
    client = Client(target, token)
    client.open()
    kept = []

    def tell(kind: str) -> None:
        print(kind, flush=True)
        sys.stdin.readline()

    tell("ready")
    connection = target.connect()
    kept += [connection, client.request("GET", connection=connection)]
    tell("GET")
    connection = target.connect()
    kept += [connection, client.request("POST", call(1, "sleep", ms=SLEEP_MS), connection=connection)]
    tell("POST")
    connection = target.connect()
    kept += [connection, client.post(message("ping", 2), connection=connection)]
    tell("idle")
    check(len(kept) == 6, "connections")


def main() -> None:
    pid, address, port, token, netns, link = sys.argv[1:]
    broker = Process(int(pid))
    in_netns = ["ip", "netns", "exec", netns]
    command = [*in_netns, sys.executable, __file__, "client", address, port, token]
    clients = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert clients.stdin and clients.stdout
    try:
        threads: dict[str, str] = {}
        known: set[str] = set()
        while (kind := clients.stdout.readline().strip()) != "idle" or kind not in threads:
            check(kind, "the clients have ended")
            eventually("connections come to rest", lambda: len(broker.connections()) == len(threads) + (kind != "ready"))
            if kind != "ready":
                (threads[kind],) = broker.connections() - known
            known |= broker.connections()
            if kind == "idle":
                break
            clients.stdin.write("\n")
            clients.stdin.flush()

        subprocess.run([*in_netns, "ip", "link", "set", link, "down"], check=True)
        began = time.monotonic()
        for kind, limit in sorted(LIMITS.items(), key=lambda item: item[1]):
            left = began + limit - time.monotonic()
            eventually(f"the ghost of {kind} is noticed", lambda: threads[kind] not in broker.connections(), left)
            print(f"ok ghost: {kind} on a dead link let go of after {time.monotonic() - began:.0f} s", flush=True)
    finally:
        clients.kill()
        clients.wait()

    again = Client(Target("broker", int(port), address=address, host=address), token)
    again.open()
    check(again.post(message("ping", 1)).status == 200, "ping")
    again.close()
    eventually("no connection is left", lambda: not broker.connections(), 10)
    print("ok ghost: the broker serves on, with no thread of a connection left")


if __name__ == "__main__":
    if sys.argv[1] == "client":
        be_clients(Target("broker", int(sys.argv[3]), address=sys.argv[2], host=sys.argv[2]), sys.argv[4])
    else:
        main()
