// Follows a stream with the `eventsource` package and prints each event; it comes back by itself, until it gets 204.

import { EventSource } from "eventsource";

const [url] = process.argv.slice(2);
const authorization = process.env.AUTHORIZATION;

const source = new EventSource(url, {
  fetch: (input, init) =>
    fetch(input, { ...init, headers: { ...init.headers, ...(authorization && { authorization }) } }),
});

for (const type of ["log", "status", "progress", "gap", "complete", "error"]) {
  source.addEventListener(type, (event) => {
    if (event.data) {
      console.log(JSON.stringify({ ...JSON.parse(event.data), lastEventId: event.lastEventId }));
    }
  });
}

process.stdin.on("end", () => process.exit(1)).resume().unref(); // whoever reads this has gone
