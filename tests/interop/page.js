// What a page does to follow a stream; tests put it into a real browser, where it keeps what it gets in `window.story`.
({ api, token, runId }) => {
  const types = ["log", "status", "progress", "gap", "complete", "error"];
  const query = (more) => new URLSearchParams({ run_id: runId, ...more });
  const heard = { eventsource: [], websocket: [] };
  const tickets = [];
  const closed = {};
  window.story = { heard, tickets, closed };

  async function ticket() {
    const headers = { Authorization: `Bearer ${token}` };
    const answer = await fetch(`${api}/stream/ticket`, { method: "POST", headers });
    const told = await answer.json();
    tickets.push(told.ticket);
    return told.ticket;
  }

  // Without authentication an EventSource does all by itself: it comes back with Last-Event-ID, until it gets 204.
  // A ticket is of use once, so with tokens the page takes a new one and goes on behind the last event.
  async function followByEventSource() {
    const last = heard.eventsource.at(-1);
    if (token && last?.type === "complete") {
      closed.eventsource = true;
      return;
    }
    let source;
    try {
      const more = { ...(token && { ticket: await ticket() }), ...(last && { after: last.id }) };
      source = new EventSource(`${api}/stream?${query(more)}`);
    } catch {
      setTimeout(followByEventSource, 200); // no ticket: the server is away
      return;
    }
    for (const type of types) {
      source.addEventListener(type, (event) => {
        if (event.data) {
          heard.eventsource.push({ ...JSON.parse(event.data), lastEventId: event.lastEventId });
        }
      });
    }
    source.onerror = () => {
      if (token) {
        source.close();
        setTimeout(followByEventSource, 200);
      } else {
        closed.eventsource = source.readyState === EventSource.CLOSED;
      }
    };
  }

  async function followByWebSocket() {
    const last = heard.websocket.at(-1);
    let socket;
    try {
      const more = { ...(token && { ticket: await ticket() }), ...(last && { after: last.id }) };
      socket = new WebSocket(`${api.replace(/^http/, "ws")}/stream?${query(more)}`);
    } catch {
      setTimeout(followByWebSocket, 200);
      return;
    }
    socket.onmessage = (event) => heard.websocket.push(JSON.parse(event.data));
    socket.onclose = ({ code, reason }) => {
      if (code === 1000 || code >= 4000) {
        closed.websocket = `${code} ${reason}`;
      } else {
        setTimeout(followByWebSocket, 200);
      }
    };
  }

  followByEventSource();
  followByWebSocket();
}
