// Follows a run: the active or latest, or the one of `?run_id=`. Whatever goes away, it comes back where it was.
//
// EventSource can neither send a token nor say why it was refused. So each connection begins with a plain request,
// which can, and with a ticket; and it is never left to reconnect by itself, as its ticket is of use once.

import { Log } from "./log.js";
import { Run } from "./run.js";

const API = "api/v1/pipeline";
const TOKEN = "nextflow-controller.token";
const STEADY_MS = 5000; // a connection that has lasted so long was a good one
const LONGEST_PAUSE_MS = 8000;
const NO_RUN_PAUSE_MS = 2000;

const find = (id) => document.getElementById(id);
const log = new Log({ box: find("lines"), jump: find("jump"), count: find("count"), earlier: find("earlier") });
const run = new Run(
  Object.fromEntries(["state", "pipeline", "message", "facts", "tasks", "total", "processes", "process"].map((id) => [id, find(id)])),
);
const stay = find("stay");
const asked = new URLSearchParams(location.search).get("run_id");

let current = asked === "*" ? null : asked; // the run that is followed
let last = null; // the id of the last event: where to go on
let again = () => {}; // ends the connection that there is, or the pause that there is

class Refused extends Error {
  constructor(answer, problem) {
    super(problem.detail ?? `${answer.status} ${answer.statusText}`);
    this.status = answer.status;
    this.seconds = Number(answer.headers.get("retry-after")) || 0;
  }
}

async function call(method, path) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const answer = await fetch(`${API}/${path}`, { method, headers, cache: "no-store" });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer, body);
  return body;
}

async function follow() {
  for (let failures = 0; ; ) {
    const began = Date.now();
    try {
      if ((await connection()) === "complete") await more();
      else await pause("reconnecting", later((failures = Date.now() - began > STEADY_MS ? 0 : failures + 1)));
    } catch (error) {
      if (error.status === 401) await ask(sessionStorage.getItem(TOKEN) ? error.message : "");
      else if (error.status === 404 && !current) await pause("waiting for a run", NO_RUN_PAUSE_MS);
      else if (error.status === 404) return say("lost", error.message);
      else {
        const why = error instanceof Refused ? error.message : "the server does not answer";
        await pause(`reconnecting: ${why}`, error.seconds * 1000 || later((failures += 1)));
      }
    }
  }
}

/** All has come: that is the end, until somebody wants the next run, too. */
async function more() {
  say("done", "complete");
  while (!stay.checked) await new Promise((resolve) => (again = resolve));
}

function later(failures) {
  return Math.min(250 * 2 ** failures, LONGEST_PAUSE_MS) * (0.75 + Math.random() / 2); // not all followers at once
}

/** One connection, from where the last one was cut; tells whether all has come. */
async function connection() {
  if (last?.endsWith(".end") && !stay.checked) return "complete";
  const status = await call("GET", `status${current ? `?run_id=${current}` : ""}`);
  if (!last) run.show(status);
  current ??= status.run_id;
  // `*` begins with the latest run or with the cursor's, so the one that was asked for comes first by its name.
  const onward = stay.checked && last !== null;
  const query = new URLSearchParams({ run_id: onward ? "*" : current });
  if (last) query.set("after", last);
  if (sessionStorage.getItem(TOKEN)) query.set("ticket", (await call("POST", "stream/ticket")).ticket);
  return events(`${API}/stream?${query}`, onward);
}

function events(url, onward) {
  return new Promise((resolve) => {
    const source = new EventSource(url);
    const end = (how) => {
      source.close();
      resolve(how);
    };
    again = () => end("cut");
    source.addEventListener("open", () => say("live", "live"));
    for (const [type, show] of Object.entries(SHOWN)) {
      source.addEventListener(type, (message) => {
        if (message.data === undefined) return end("cut"); // `error` without data is the connection's own
        const event = JSON.parse(message.data);
        last = event.id;
        show(event);
        if (last.endsWith(".end")) {
          if (onward) say("live", "waiting for the next run");
          else end(stay.checked ? "cut" : "complete");
        }
      });
    }
  });
}

const SHOWN = {
  status: ({ run_id, data, timestamp }) => {
    if (run_id !== current) log.boundary(`${run_id}: ${data.pipeline}`);
    current = run_id;
    run.show(data, timestamp);
    say("live", "live");
  },
  progress: ({ data }) => run.showProgress(data),
  log: ({ data, timestamp }) => log.line(data.line, data.stream, timestamp),
  restarted: ({ data }) => log.boundary(`attempt ${data.attempt}: ${data.reason}`),
  gap: ({ data }) => log.boundary(`gap: ${data.reason}`),
  error: ({ data }) => log.boundary(`error: ${data.detail}`),
  complete: ({ data, timestamp }) => {
    run.show(data, timestamp);
    log.boundary(data.status);
  },
};

/** Wait, or less where there is reason to: the network is back, or something else is wanted. */
function pause(text, milliseconds) {
  say("wait", text);
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    again = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

/** Ask for a token; `why` says what was wrong with the one before. */
function ask(why) {
  say("wait", "a token is needed");
  sessionStorage.removeItem(TOKEN);
  const form = find("ask");
  find("refused").textContent = why;
  show(form, true);
  find("token").focus();
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(TOKEN, find("token").value.trim());
      find("token").value = "";
      show(form, false);
      resolve();
    };
  });
}

function show(form, shown) {
  form.hidden = !shown;
  find("view").hidden = shown;
  find("forget").hidden = shown || !sessionStorage.getItem(TOKEN);
}

function say(kind, text) {
  const place = find("connection");
  place.dataset.kind = kind;
  if (place.textContent !== text) place.textContent = text;
}

show(find("ask"), false);
stay.checked = asked === "*";
stay.addEventListener("change", () => again());
find("wrap").addEventListener("change", (event) => log.wrap(event.target.checked));
find("forget").addEventListener("click", () => {
  sessionStorage.removeItem(TOKEN);
  location.reload();
});
addEventListener("online", () => again());
follow();
