// The predictions of a run for a video: its views are scored one after the other, and bars show the most likely classes.

import { formatPercent } from "./geometry.js";
import { html } from "./lists.js";

export class Predictions {
  // `choose(view)` is called when a view is clicked; `failed(message)` when scoring fails, and with "" when it works again.
  constructor(root, source, choose, failed) {
    Object.assign(this, { root, source, choose, failed });
    this.scores = new Map();
    this.round = null; // the run and the video that the scores belong to
    this.running = null; // the round that is being scored
  }

  // Show a view of a video; scores of the same run and video are kept. `offered` are the views that can be selected.
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

  // Score the views that have no scores yet, the present one first. After a failure it can be called again.
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
      if (round !== this.round) return; // another video is shown by now
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
    const combined = aggregate === "max" ? "Largest" : "Mean";
    const all = count === 1 ? "1 view" : `${count} views`;
    const state = this.round?.stopped ? "stopped" : "scoring…";
    progress.textContent = done.length < count ? `${combined} of ${done.length} of ${all}; ${state}` : `${combined} of ${all}`;
    this.root.setAttribute("aria-busy", String(done.length < count && !this.round?.stopped));
    const overall = classes.map((_, k) => {
      const scores = done.map((probabilities) => probabilities[k]);
      return aggregate === "max" ? Math.max(...scores) : scores.reduce((a, b) => a + b, 0) / scores.length;
    });
    const order = done.length ? classes.map((_, k) => k).sort((a, b) => overall[b] - overall[a] || a - b) : [];
    body.replaceChildren(
      ...order.slice(0, 5).map((k) => {
        const shares = [overall[k], this.scores.get(this.view)?.[k]];
        const cells = shares.map((p) => html("td", {}, ...(p === undefined ? ["…"] : meter(p))));
        return html("tr", {}, html("th", { scope: "row" }, classes[k]), ...cells);
      }),
    );
    title.textContent = count > 1 && order.length ? `${classes[order[0]]}, view by view` : "";
    const shown = count > 1 && order.length ? count : 0;
    const focused = [...views.children].indexOf(document.activeElement);
    views.replaceChildren(...Array.from({ length: shown }, (_, v) => this.button(v, this.scores.get(v)?.[order[0]])));
    if (focused >= 0) views.children[focused]?.focus(); // the buttons are new elements
  }

  // A button for a view, filled to the height of the probability of the most likely class.
  button(v, probability) {
    const words = probability === undefined ? "not scored yet" : formatPercent(probability);
    const title = `view ${v + 1}: ${words}`;
    const button = html("button", { type: "button", title, disabled: !this.offered.includes(v) }, html("i", {}));
    button.setAttribute("aria-label", `View ${v + 1}, ${words}`);
    button.setAttribute("aria-pressed", String(v === this.view));
    button.firstChild.style.height = `${100 * (probability ?? 0)}%`;
    button.addEventListener("click", () => this.choose(v));
    return button;
  }
}

// A probability as a bar and as text.
function meter(value) {
  const bar = html("span", { className: "bar" }, html("i", {}));
  bar.firstChild.style.width = formatPercent(value).replace(" ", "");
  return [bar, html("span", { className: "number" }, formatPercent(value))];
}
