"""What a follower has to know, for the API's document: the same on every transport, then transport by transport."""

NOTES = """
**Events.** Each is one JSON object `{"id", "type", "run_id", "timestamp", "data"}` (schema `Event`), the same on every
transport. The first is always a `status`: the run as it is now. `log` brings a line, in order and exactly once; `status`
and `progress` come when they change and are not replayed; `gap` says what of the log is gone for good; `restarted` stands
between the log of an attempt and that of the next, where the head was started again; `complete` ends the stream of a run
that has ended; `error` ends one that cannot go on. Whatever `types` says, the last four come.

**Ids.** An event's `id` is a cursor, a place in the log of one run: pass it exactly as it was received, as
`Last-Event-ID` or `after` (the header goes first, as an `EventSource` keeps its first URL for ever), and the stream goes
on behind it: across lost connections, restarts of the server, and a Redis that was emptied. A cursor of another run than
the one asked for, or of a place that nobody holds any more, is answered with a `gap`. The id of `complete` ends in
`.end`; coming back with it is answered with 204, which tells an `EventSource` not to come back again. With `run_id=*`
the stream does not end with a run: it stays for the next one.

| transport | how to ask for it | what comes |
| --- | --- | --- |
| Server-Sent Events | `Accept: text/event-stream` | `id`, `event` (the type) and `data` (the whole event); at first `retry: 1000`; a comment (`: still here`) every 15 s of silence (`HEARTBEAT_SECONDS`) |
| NDJSON | `Accept: application/x-ndjson` | an event a line; an empty line for silence |
| plain text | `Accept: text/plain`, or no preference (`curl -N`) | the log's own bytes, a line a line; what is no line of the log begins with `#`; only `log` unless `types` says more; `timestamps=true` puts its cursor before each line |
| WebSocket | an upgrade of this path | an event a message; pings; `after` instead of `Last-Event-ID` |

A server that is told to stop ends its streams, with a comment (text: a `#` line with the cursor; NDJSON: just so;
WebSocket: code 1012): come back to the next one.

**Browsers.** `EventSource` and `WebSocket` cannot send a token, so a page asks for a ticket (`POST /stream/ticket`) and
puts it into the URL: `?ticket=…&after=…`. A ticket is of use once; for each reconnect ask for a new one. (To try this
operation on the page of `/docs`, set `follow` to `false`: a page like that shows an answer when it has ended.)
"""  # noqa: E501  # rows of a table are lines
