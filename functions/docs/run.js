// The run on the page: its state, whose it is, how long it takes, and how far its tasks are.

const ENDS = ["succeeded", "failed", "cancelled"];
const PARTS = ["succeeded", "cached", "failed", "running"];
const NOTHING = { succeeded: 0, cached: 0, failed: 0, running: 0 };

export class Run {
  #parts;
  #status = null;
  #behind = 0; // how far this machine's clock is behind the server's, in milliseconds
  #rows = new Map();

  constructor(parts) {
    this.#parts = parts;
    setInterval(() => this.#status && !ENDS.includes(this.#status.status) && this.#showFacts(), 1000);
  }

  /** The run as it is; `timestamp` is when the server said so. */
  show(status, timestamp) {
    if (timestamp) this.#behind = new Date(timestamp) - Date.now();
    if (this.#status?.run_id !== status.run_id) this.#forget();
    this.#status = status;
    const { state, pipeline, message } = this.#parts;
    if (state.textContent !== status.status) state.textContent = status.status; // or it would be read out again
    state.dataset.state = status.status;
    pipeline.textContent = status.pipeline;
    message.textContent = status.message ?? "";
    message.hidden = !status.message;
    document.title = `${status.status}: ${status.pipeline}`;
    this.#showFacts();
    if (status.progress) this.showProgress(status.progress);
  }

  showProgress({ total = NOTHING, processes = {} }) {
    const { tasks, total: sum, processes: list } = this.#parts;
    tasks.hidden = !Object.keys(processes).length;
    sum.textContent = `${done(total)} of ${done(total) + total.running} done`;
    for (const [name, counts] of Object.entries(processes)) {
      if (!this.#rows.has(name)) {
        list.append(this.#parts.process.content.cloneNode(true));
        this.#rows.set(name, list.lastElementChild);
      }
      fill(this.#rows.get(name), name, counts);
    }
  }

  #forget() {
    this.#rows.clear();
    this.#parts.processes.replaceChildren();
    this.#parts.tasks.hidden = true;
  }

  #showFacts() {
    const run = this.#status;
    const began = new Date(run.started_at ?? run.created_at);
    const until = run.finished_at ? new Date(run.finished_at) : new Date(Date.now() + this.#behind);
    const facts = {
      Run: run.run_id,
      Revision: run.revision,
      Profile: run.profile,
      "Started by": run.triggered_by,
      [run.started_at ? "Started" : "Accepted"]: began.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }),
      Duration: duration(run.duration_seconds ?? Math.max(0, (until - began) / 1000)),
      Attempt: run.attempt > 1 ? run.attempt : null,
      "Resumed from": run.resumed_from,
      "Exit code": run.exit_code,
    };
    const pairs = Object.entries(facts).filter(([, fact]) => fact !== null && fact !== undefined);
    this.#parts.facts.replaceChildren(...pairs.flatMap(([name, fact]) => [text("dt", name), text("dd", fact)]));
  }
}

function fill({ children: [label, count, bar] }, name, counts) {
  const all = done(counts) + counts.running;
  label.textContent = bar.ariaLabel = name;
  const words = PARTS.filter((part) => part !== "succeeded" && counts[part]).map((part) => `${counts[part]} ${part}`);
  if (counts.retried) words.push(`${counts.retried} retried`);
  count.textContent = `${words.length ? `${words.join(", ")} · ` : ""}${done(counts)}/${all}`;
  bar.ariaValueMax = all;
  bar.ariaValueNow = done(counts);
  for (const part of bar.children) part.style.width = `${all ? (100 * counts[part.className]) / all : 0}%`;
}

function done({ succeeded, failed, cached }) {
  return succeeded + failed + cached;
}

function text(name, content) {
  const made = document.createElement(name);
  made.textContent = content;
  return made;
}

function duration(seconds) {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  const two = (part) => String(part).padStart(2, "0");
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(Math.floor(seconds % 60))}`;
}
