// What a run makes of a video: its views scored one after the other, and bars of the likeliest classes as they come.

import { html } from "./panels.js";
import { percent } from "./scene.js";

export class Predictions {
  // `choose(view)` when one is taken; `failed(words)` hears why no more scores come, and "" when they do again.
  constructor(root, source, choose, failed) {
    Object.assign(this, { root, source, choose, failed });
    this.scores = new Map();
    this.round = this.running = null; // of which video the scores are, and of which some are on their way
  }

  // Show a view of a video; the scores that are known of it stay. `offered` are the views that can be chosen.
  show({ run, video, facts, view, offered }) {
    if (!this.round || run !== this.round.run || video !== this.round.video) {
      this.round = { run, video, stopped: false };
      this.scores = new Map();
    }
    Object.assign(this, { facts, view, offered });
    this.draw();
  }

  close() {
    this.round = null;
  }

  // Score the views that have no scores yet, the present one first. After a failure it can be tried again.
  async score() {
    const { round } = this;
    if (!round || this.running === round) return;
    this.running = round;
    const count = this.facts.clips * this.facts.crops;
    const order = [this.view, ...Array.from({ length: count }, (_, v) => v).filter((v) => v !== this.view)];
    for (const view of order.filter((v) => !this.scores.has(v))) {
      let error = null;
      let probabilities;
      try {
        probabilities = await this.source.scores(round.run, round.video, view);
      } catch (thrown) {
        error = thrown;
      }
      if (round !== this.round) return;
      round.stopped = error !== null;
      this.failed(error ? error.message : "");
      if (!error) this.scores.set(view, probabilities);
      this.draw();
      if (error) break;
    }
    this.running = null;
  }

  draw() {
    const { classes, aggregate, clips, crops } = this.facts;
    const [done, count] = [[...this.scores.values()], clips * crops];
    const [progress, body, title, views] = [".progress", "tbody", "h4", ".views"].map((s) => this.root.querySelector(s));
    const joint = aggregate === "max" ? "Largest" : "Mean";
    const all = count === 1 ? "1 view" : `${count} views`;
    const state = this.round?.stopped ? "stopped" : "scoring…";
    progress.textContent = done.length < count ? `${joint} of ${done.length} of ${all}; ${state}` : `${joint} of ${all}`;
    this.root.setAttribute("aria-busy", String(done.length < count && !this.round?.stopped));
    const joined = classes.map((_, k) => {
      const found = done.map((probabilities) => probabilities[k]);
      return aggregate === "max" ? Math.max(...found) : found.reduce((a, b) => a + b, 0) / found.length;
    });
    const order = done.length ? classes.map((_, k) => k).sort((a, b) => joined[b] - joined[a] || a - b) : [];
    body.replaceChildren(
      ...order.slice(0, 5).map((k) => {
        const shares = [joined[k], this.scores.get(this.view)?.[k]];
        const cells = shares.map((p) => html("td", {}, ...(p === undefined ? ["…"] : meter(p))));
        return html("tr", {}, html("th", { scope: "row" }, classes[k]), ...cells);
      }),
    );
    title.textContent = count > 1 && order.length ? `${classes[order[0]]}, view by view` : "";
    const shown = count > 1 && order.length ? count : 0;
    const focused = [...views.children].indexOf(document.activeElement);
    views.replaceChildren(...Array.from({ length: shown }, (_, v) => this.button(v, this.scores.get(v)?.[order[0]])));
    if (focused >= 0) views.children[focused]?.focus();
  }

  button(v, probability) {
    const words = probability === undefined ? "not scored yet" : percent(probability);
    const title = `view ${v + 1}: ${words}`;
    const button = html("button", { type: "button", title, disabled: !this.offered.includes(v) }, html("i", {}));
    button.setAttribute("aria-label", `View ${v + 1}, ${words}`);
    button.setAttribute("aria-pressed", String(v === this.view));
    button.firstChild.style.height = `${100 * (probability ?? 0)}%`;
    button.addEventListener("click", () => this.choose(v));
    return button;
  }
}

function meter(value) {
  const bar = html("span", { className: "bar" }, html("i", {}));
  bar.firstChild.style.width = percent(value).replace(" ", "");
  return [bar, html("span", { className: "number" }, percent(value))];
}
