// What a page of another origin gets of a run that has ended, in each way a page can ask.
async ({ api, token, runId, tickets }) => {
  const stream = `${api}/stream?run_id=${runId}`;
  const refused = (what) => new Error(`refused: ${what}`);

  const ways = {
    async fetch() {
      const headers = { Authorization: `Bearer ${token}`, Accept: "application/x-ndjson" };
      const answer = await fetch(stream, { headers }); // after a preflight: both headers ask for one
      const lines = (await answer.text()).split("\n").filter((line) => line);
      return { id: answer.headers.get("x-request-id"), events: lines.map((line) => JSON.parse(line)) };
    },
    eventsource: () =>
      new Promise((resolve, reject) => {
        const source = new EventSource(`${stream}&ticket=${tickets[0]}`);
        const events = [];
        for (const type of ["log", "status", "complete"]) {
          source.addEventListener(type, (event) => events.push(JSON.parse(event.data)));
        }
        source.addEventListener("complete", () => resolve({ events }));
        source.onerror = () => reject(refused("an error and nothing else"));
      }),
    websocket: () =>
      new Promise((resolve, reject) => {
        const socket = new WebSocket(`${stream.replace(/^http/, "ws")}&ticket=${tickets[1]}`);
        const events = [];
        socket.onmessage = (event) => events.push(JSON.parse(event.data));
        socket.onclose = ({ code, reason }) => (code === 1000 ? resolve({ events }) : reject(refused(`${code} ${reason}`)));
      }),
  };

  const told = {};
  for (const [name, way] of Object.entries(ways)) {
    told[name] = await way().catch((error) => ({ error: String(error) }));
  }
  return told;
}
