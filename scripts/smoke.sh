#!/bin/sh
# A walk through mcp-broker with curl, from the first token to the last process: `scripts/smoke.sh [MCP-BROKER]`.
#
# Needs a shell, curl and a built broker (default: target/release/mcp-broker), whose built-in demo-server is the child.
# Reads from top to bottom as an introduction to the protocol: MCP's Streamable HTTP, revision 2025-11-25, which is
# JSON-RPC messages in POST requests, and answers as JSON or as a stream of server-sent events.
# Every step prints one line; the first that goes wrong prints what came back instead, and ends the walk with status 1.

set -eu

broker=${1:-$(cd "$(dirname "$0")/.." && pwd)/target/release/mcp-broker}
work=$(mktemp -d)
broker_pid=
stream_pid=
call_pid=
steps=0

# --- Tools for the walk -----------------------------------------------------------------------------------------------

cleanup() {
    status=$?
    trap - EXIT
    for pid in $call_pid $stream_pid $broker_pid; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

ok() {
    steps=$((steps + 1))
    echo "ok $*"
}

fail() {
    echo "FAILED $*"
    echo "--- the last answer:"
    cat "$work/head" "$work/body" 2>/dev/null || true
    echo "--- the broker's log:"
    tail -n 20 "$work/stderr" 2>/dev/null || true
    exit 1
}

# eventually SECONDS COMMAND...: waits until COMMAND succeeds; fails when the time is up.
eventually() {
    tries=$(($1 * 20))
    shift
    until "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.05
    done
}

# request METHOD PATH [CURL-OPTION...]: sets $code; the answer's head and body are in files of these names.
request() {
    method=$1 path=$2
    shift 2
    : >"$work/body"
    code=$(curl -sS -m 20 -X "$method" -o "$work/body" -D "$work/head" -w '%{http_code}' "$@" "$url$path") ||
        fail "$method $path: curl"
}

# post JSON [CURL-OPTION...]: one JSON-RPC message to the MCP endpoint.
post() {
    message=$1
    shift
    request POST /mcp -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \
        --data-binary "$message" "$@"
}

# in_session JSON: the same with $token, in $session.
in_session() {
    post "$1" -H "Authorization: Bearer $token" -H "Mcp-Session-Id: $session" -H 'MCP-Protocol-Version: 2025-11-25'
}

expect() {
    [ "$code" = "$1" ] || fail "$2: status $code, not $1"
}

body_has() {
    grep -qF -- "$1" "$work/body" || fail "$2: the body lacks $1"
}

# header NAME: the value of a header of the last answer.
header() {
    tr -d '\r' <"$work/head" | sed -n "s/^$1: *//Ip"
}

token_of() {
    "$broker" token add "$1" --state-dir "$work/state" | grep -o 'mcpb_[A-Za-z0-9_-]*' | head -n 1
}

# children: the process ids of the broker's children.
children() {
    grep -l "^PPid:[[:space:]]*$broker_pid\$" /proc/[0-9]*/status 2>/dev/null | sed 's|^/proc/||; s|/status$||'
}

has_no_children() {
    [ -z "$(children)" ]
}

listening() {
    grep -qs '^listening on http://' "$work/stdout"
}

status_is() {
    in_session '{"jsonrpc":"2.0","id":1,"method":"ping"}'
    [ "$code" = "$1" ]
}

unknown_session=000000000000000000000000000000000000000000000000
initialize='{"jsonrpc":"2.0","id":0,"method":"initialize","params":{
    "protocolVersion":"2025-11-25",
    "capabilities":{"elicitation":{"form":{}}},
    "clientInfo":{"name":"smoke","version":"1.0.0"}}}'

# --- Start ------------------------------------------------------------------------------------------------------------

[ -x "$broker" ] || { echo "there is no $broker: cargo build --release" >&2; exit 1; }
mkdir "$work/state" && chmod 700 "$work/state"
"$broker" serve --listen 127.0.0.1:0 --state-dir "$work/state" >"$work/stdout" 2>"$work/stderr" &
broker_pid=$!
eventually 10 listening || fail 'serve: it does not say where it listens'
url=$(sed -n '1s/^listening on //p' "$work/stdout")
ok "serve: listening on $url"

request GET /healthz
expect 200 'GET /healthz'
ok 'GET /healthz: 200, for whoever watches over the broker'

# --- Who may come in --------------------------------------------------------------------------------------------------

post "$initialize"
expect 401 'without a token'
case $(header WWW-Authenticate) in Bearer*) ;; *) fail 'without a token: no WWW-Authenticate: Bearer' ;; esac
ok 'without a token: 401, and a challenge'

alice=$(token_of alice)
[ -n "$alice" ] || fail 'token add alice: no token'
bob=$(token_of bob)
[ -n "$bob" ] || fail 'token add bob: no token'
"$broker" token list --state-dir "$work/state" >"$work/body"
body_has alice 'token list'
grep -qF "$alice" "$work/body" && fail 'token list: it shows the token'
ok 'token add: a token each for alice and bob, shown once'

token=$alice
session=$unknown_session
eventually 2 status_is 404 || fail 'the new token: not known to the running broker within two seconds'
ok 'the new token: good at once, without a restart'

post "$initialize" -H "Authorization: Bearer $alice" -H 'Origin: https://evil.example'
expect 403 'a foreign Origin'
ok 'a foreign Origin: 403, as a web page that the user happens to visit would get'

# --- A session --------------------------------------------------------------------------------------------------------

post "$initialize" -H "Authorization: Bearer $alice"
expect 200 initialize
body_has '"serverInfo"' initialize
session=$(header Mcp-Session-Id)
[ "${#session}" -eq 48 ] || fail "initialize: Mcp-Session-Id is '$session'"
ok "initialize: 200, Mcp-Session-Id: $session"

[ "$(children | wc -l)" -eq 1 ] || fail 'initialize: not one child'
ok 'one session, one child process'

in_session '{"jsonrpc":"2.0","method":"notifications/initialized"}'
expect 202 notifications/initialized
[ ! -s "$work/body" ] || fail 'notifications/initialized: a body'
ok 'notifications/initialized: 202, as every notification'

in_session '{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
expect 200 tools/list
body_has '"echo"' tools/list
ok 'tools/list: 200'

in_session '{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}'
expect 200 'tools/call echo'
body_has '"id":"a"' 'tools/call echo'
body_has '"text":"hello"' 'tools/call echo'
case $(header Content-Type) in application/json*) ;; *) fail 'tools/call echo: not JSON' ;; esac
ok 'tools/call echo: 200, and the answer as JSON'

in_session '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"whoami"}}'
expect 200 'tools/call whoami'
body_has alice 'tools/call whoami'
ok 'tools/call whoami: the child knows that it works for alice'

in_session '{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{
    "name":"count","arguments":{"to":3,"delay_ms":50},"_meta":{"progressToken":"p"}}}'
expect 200 'tools/call count'
case $(header Content-Type) in text/event-stream*) ;; *) fail 'tools/call count: not a stream' ;; esac
[ "$(grep -c '^data: .*notifications/progress' "$work/body")" -eq 3 ] || fail 'tools/call count: not three times progress'
body_has 'counted to 3' 'tools/call count'
ok 'tools/call count: 200, a stream of three times progress and the answer'

# --- The other direction ----------------------------------------------------------------------------------------------

curl -sSN -m 60 -H "Authorization: Bearer $alice" -H "Mcp-Session-Id: $session" -H 'Accept: text/event-stream' \
    "$url/mcp" >"$work/stream" &
stream_pid=$!
eventually 5 test -s "$work/stream" || fail 'GET: nothing on the stream'
ok 'GET: the stream for what the server says on its own'

curl -sSN -m 20 -H "Authorization: Bearer $alice" -H "Mcp-Session-Id: $session" -H 'Content-Type: application/json' \
    -H 'Accept: application/json, text/event-stream' --data-binary '{"jsonrpc":"2.0","id":4,"method":"tools/call",
    "params":{"name":"ask","arguments":{"question":"Which colour?"}}}' "$url/mcp" >"$work/call" &
call_pid=$!
eventually 5 grep -q 'Which colour?' "$work/stream" || fail 'ask: no question on the stream'
question=$(sed -n '/Which colour?/s/.*"id":\([^,}]*\).*/\1/p' "$work/stream")
ok "ask: the server puts a question to the client, request $question on that stream"

in_session '{"jsonrpc":"2.0","id":'"$question"',"result":{"action":"accept","content":{"answer":"green"}}}'
expect 202 'the answer to the question'
wait "$call_pid" || fail 'ask: curl'
call_pid=
grep -q green "$work/call" || fail 'ask: the answer has not reached the server'
ok 'the answer to it: 202, and the call that was waiting ends'

# --- What is refused --------------------------------------------------------------------------------------------------

token=$bob
in_session '{"jsonrpc":"2.0","id":5,"method":"ping"}'
token=$alice
expect 403 "bob in alice's session"
ok "bob in alice's session: 403"

real=$session
session=$unknown_session
in_session '{"jsonrpc":"2.0","id":6,"method":"ping"}'
session=$real
expect 404 'an unknown session'
ok 'an unknown session: 404, so initialize again'

post '{"jsonrpc":"2.0","id":7,"method":"tools/list"}' -H "Authorization: Bearer $alice"
expect 400 'no session id'
ok 'no session id: 400, only initialize may start a child'

in_session '{"jsonrpc":"2.0","id":8,"method":'
expect 400 'not JSON'
body_has -32700 'not JSON'
ok 'not JSON: 400, error -32700'

# --- The end of a session ---------------------------------------------------------------------------------------------

request DELETE /mcp -H "Authorization: Bearer $alice" -H "Mcp-Session-Id: $session"
expect 204 DELETE
in_session '{"jsonrpc":"2.0","id":9,"method":"ping"}'
expect 404 'after DELETE'
wait "$stream_pid" || fail 'DELETE: the stream was cut off instead of ended'
stream_pid=
eventually 10 has_no_children || fail 'DELETE: the child is still there'
ok 'DELETE: 204, then 404; stream and child are gone'

post "$initialize" -H "Authorization: Bearer $alice"
expect 200 'initialize again'
session=$(header Mcp-Session-Id)
"$broker" token revoke alice --state-dir "$work/state" >/dev/null
eventually 2 status_is 401 || fail 'token revoke: the token is still good after two seconds'
eventually 10 has_no_children || fail 'token revoke: the child is still there'
ok 'token revoke: 401 within two seconds, and the session has ended'

# --- The end of the broker --------------------------------------------------------------------------------------------

post "$initialize" -H "Authorization: Bearer $bob"
expect 200 'initialize by bob'
orphans=$(children)
[ -n "$orphans" ] || fail 'initialize by bob: no child'
kill -TERM "$broker_pid"
ended=0
wait "$broker_pid" || ended=$?
broker_pid=
[ "$ended" -eq 0 ] || fail "SIGTERM: exit status $ended"
for pid in $orphans; do
    [ ! -e "/proc/$pid" ] || fail "SIGTERM: child $pid is still there"
done
ok 'SIGTERM: exit status 0, no child left'

echo "smoke: $steps steps ok"
