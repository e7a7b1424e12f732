// The log on the page: its newest lines, put in a frame at a time, at its end unless the reader has gone up.

const KEPT = 5000; // elements; older lines are counted, not kept
const NEAR = 24; // pixels from the end that still are the end

export class Log {
  #box;
  #jump;
  #count;
  #earlier;
  #waiting = [];
  #lines = 0;
  #dropped = 0;
  #atEnd = true;
  #drawing = false;

  constructor({ box, jump, count, earlier }) {
    this.#box = box;
    this.#jump = jump;
    this.#count = count;
    this.#earlier = earlier;
    box.addEventListener("scroll", () => this.#stand(box.scrollHeight - box.scrollTop - box.clientHeight <= NEAR));
    jump.addEventListener("click", () => {
      this.toEnd();
      box.focus();
    });
    new ResizeObserver(() => this.#settle()).observe(box);
  }

  /** A line of the run. */
  line(text, stream, timestamp) {
    this.#lines += 1;
    this.#add({ text, name: `line ${stream}`, time: clock(timestamp) });
  }

  /** Something that is no line: where a run begins, what is missing. */
  boundary(text) {
    this.#add({ text, name: "boundary" });
  }

  wrap(wrapped) {
    this.#box.classList.toggle("wrap", wrapped);
    this.#settle();
  }

  toEnd() {
    this.#box.scrollTop = this.#box.scrollHeight;
    this.#stand(true);
  }

  #add(part) {
    this.#waiting.push(part);
    if (this.#waiting.length > 2 * KEPT) this.#drop(this.#waiting.splice(0, KEPT)); // a tab in the background draws nothing
    if (!this.#drawing) {
      this.#drawing = true;
      requestAnimationFrame(() => this.#draw());
    }
  }

  #draw() {
    this.#drawing = false;
    const parts = this.#waiting;
    this.#waiting = [];
    if (parts.length > KEPT) this.#drop(parts.splice(0, parts.length - KEPT));
    this.#box.append(...parts.map(element));
    const old = [];
    for (let node = this.#box.firstChild; this.#box.childElementCount - old.length > KEPT; node = node.nextSibling) old.push(node);
    this.#drop(old.map((node) => ({ name: node.className })));
    old.forEach((node) => node.remove());
    this.#settle();
    this.#count.textContent = this.#lines ? `${this.#lines.toLocaleString()} ${this.#lines === 1 ? "line" : "lines"}` : "";
    this.#earlier.hidden = !this.#dropped;
    this.#earlier.textContent = `${this.#dropped.toLocaleString()} earlier lines are not shown here; the API has them.`;
  }

  #drop(parts) {
    this.#dropped += parts.filter((part) => part.name !== "boundary").length;
  }

  #settle() {
    if (this.#atEnd) this.toEnd();
  }

  #stand(atEnd) {
    this.#atEnd = atEnd;
    this.#jump.hidden = atEnd;
  }
}

function element({ text, name, time }) {
  const made = document.createElement("div");
  made.className = name;
  made.textContent = text; // never as markup: it comes out of a pipeline
  if (time) made.dataset.time = time;
  return made;
}

function clock(timestamp) {
  const at = new Date(timestamp);
  return [at.getHours(), at.getMinutes(), at.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}
