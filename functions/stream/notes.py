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

**Lines.** A line is what the container wrote up to a newline, and nothing else ends one: no CR, no U+2028. None is too odd
to come, and none is changed:

| a line that | comes like this |
| --- | --- |
| is not UTF-8 | `data.line` has U+FFFD for what is none, `data.base64` the exact bytes; plain text brings the bytes |
| holds CR, NUL, ANSI colours, other control characters | with them (JSON escapes them). Of CR LF the CR is the line's last character, unless the runtime has taken it off, as containerd does |
| is empty | as an event whose `line` is empty; as an empty line |
| is longer than 1 MiB | as lines of exactly 1048576 bytes and a shorter one, perhaps empty, that ends it: each with an id, all of one time. As JSON such an event may have several times that, more than some WebSocket clients take unless told to (`max_size`) |
| is the last, and got no newline | as any other, once the log has ended |
| looks like a part of the stream | as text inside of an event. In plain text `# gap` may be a program's own words: with `timestamps=true` every line of the log begins with its cursor, and what begins with `#` is never one |

Ids grow from line to line, also where a node's clock was set back: `timestamp` is then what that clock said. However fast lines
come, or however slowly they are read, none is left out. Plain text has no word for silence, so a proxy may cut it: come
back with `after`, or ask for another transport. Terminals obey what a log says to them: look at a stranger's through `less`.

A server that is told to stop ends its streams, with a comment (text: a `#` line with the cursor; NDJSON: just so;
WebSocket: code 1012): come back to the next one.

**Browsers.** `EventSource` and `WebSocket` cannot send a token, so a page asks for a ticket (`POST /stream/ticket`) and
puts it into the URL: `?ticket=…&after=…`. A ticket is of use once; for each reconnect ask for a new one. (To try this
operation on the page of `/docs`, set `follow` to `false`: a page like that shows an answer when it has ended.)
"""  # noqa: E501  # rows of a table are lines
