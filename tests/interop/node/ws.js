// Follows a stream with the `ws` package and prints each event; it comes back behind the last one, until it gets 1000.

import { WebSocket } from "ws";

const [url] = process.argv.slice(2);
const authorization = process.env.AUTHORIZATION;
let after;

function follow() {
  const socket = new WebSocket(after ? `${url}&after=${after}` : url, { headers: authorization && { authorization } });
  socket.on("message", (message) => {
    after = JSON.parse(message).id;
    console.log(String(message));
  });
  socket.on("error", () => {}); // `close` follows
  socket.on("close", (code, reason) => {
    if (code >= 4000) {
      throw new Error(`${code} ${reason}`);
    }
    if (code !== 1000) {
      setTimeout(follow, 200);
    }
  });
}

follow();

process.stdin.on("end", () => process.exit(1)).resume().unref(); // whoever reads this has gone
