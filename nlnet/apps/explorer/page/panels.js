// The panels beside the figure: blocks, strongest keys, the player, predictions. Each is given what it shows.

import { Figure, momentOf } from "./figure.js";
import { thumbnail } from "./heat.js";
import { part, percent, shownPlace, shownWeight, total } from "./scene.js";

export function html(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// A block's name for people: its path less the part that all blocks share.
export function blockName(path) {
  return path.replace(/\.?nonlocal_block$/, "") || path;
}

// Radio buttons, one for each block, with a thumbnail of its answer. `choose(path)` when one is taken.
export function drawBlocks(list, { blocks, rows, chosen, sign, top, name, choose }) {
  const focused = list.contains(document.activeElement);
  list.replaceChildren(
    ...blocks.map(({ path, keys, pairwise, signed }) => {
      const shown = signed ? sign : "positive";
      const radio = html("input", { type: "radio", name, value: path, checked: path === chosen });
      radio.addEventListener("change", () => choose(path));
      const { weights } = rows[path];
      const picture = html("img", { src: thumbnail(weights, keys, shown), alt: "" });
      const grid = keys.map((axis) => axis.length).join("×");
      const share = massOf(weights, shown, top);
      const facts = html(
        "span",
        { className: "facts", title: `${pairwise.replaceAll("_", " ")}; keys: frames×rows×columns` },
        html("span", {}, `${grid} keys`),
        html("span", { className: "number" }, `top ${top}: ${percent(share)}`),
      );
      const label = html("span", { className: "name" }, blockName(path));
      return html("label", { className: "block" }, radio, label, picture, facts);
    }),
  );
  if (focused) list.querySelector("input:checked")?.focus();
}

// The fraction of all weight of a sign that its `count` largest hold.
function massOf(weights, sign, count) {
  const sum = total(weights, sign);
  if (sum === 0) return 0;
  const largest = Array.from(weights, (weight) => part(weight, sign)).sort((a, b) => b - a);
  return largest.slice(0, count).reduce((a, b) => a + b, 0) / sum;
}

// A row a key, the strongest first. `point(pick or null)` while the pointer is on one.
export function drawKeys(body, picks, point) {
  body.replaceChildren(
    ...picks.map((pick, i) => {
      const row = html("tr", {}, html("td", {}, String(i + 1)), ...pick.at.map((value) => html("td", {}, shownPlace(value))));
      row.append(html("td", {}, shownWeight(pick.weight)));
      row.addEventListener("pointerenter", () => point(pick));
      row.addEventListener("pointerleave", () => point(null));
      return row;
    }),
  );
  if (!picks.length) body.append(html("tr", {}, html("td", { colSpan: 5 }, "no key has a weight of this sign")));
}

// The clip playing at the video's own pace. `moved(frame)` when a person moves it.
export class Player {
  constructor(root, moved) {
    this.figure = new Figure(root.querySelector("svg"), { stacked: true });
    [this.button, this.slider, this.time] = ["button", "input", "output"].map((name) => root.querySelector(name));
    this.moved = moved;
    this.playing = 0;
    this.button.addEventListener("click", () => (this.playing ? this.stop() : this.play()));
    this.slider.addEventListener("input", () => {
      this.stop();
      this.show(Number(this.slider.value));
      this.moved(this.now);
    });
  }

  setClip(clip, room) {
    this.stop();
    this.clip = clip;
    this.figure.setClip(clip, room);
    this.slider.max = clip.frames.length - 1;
  }

  show(frame) {
    this.now = Math.min(frame, this.clip.frames.length - 1);
    this.figure.show(this.now);
    this.slider.value = this.now;
    const words = `frame ${this.now}, ${momentOf(this.clip, this.now)}`;
    this.slider.setAttribute("aria-valuetext", words);
    this.time.textContent = `${this.now + 1} / ${this.clip.frames.length}`;
    this.figure.svg.setAttribute("aria-label", `The clip, ${words}`);
  }

  play() {
    this.button.textContent = "Pause";
    const next = () => {
      this.show((this.now + 1) % this.clip.frames.length);
      this.playing = setTimeout(next, this.pause());
    };
    this.playing = setTimeout(next, this.pause());
  }

  // How long the present frame stays, milliseconds. A clip may go on from the video's end at its beginning.
  pause() {
    const seconds = this.clip.seconds ?? [];
    const gap = seconds[this.now + 1] - seconds[this.now];
    return 1000 * Math.min(Math.max(gap > 0 ? gap : 0.25, 0.03), 2);
  }

  stop() {
    clearTimeout(this.playing);
    if (this.playing) this.moved(this.now);
    this.playing = 0;
    this.button.textContent = "Play";
  }
}

// Bars of the likeliest classes, for the video (the views scored so far, joined as in testing) and for this view.
export function drawPredictions(root, { classes, aggregate, scores, view, count, choose, offered }) {
  const done = [...scores.values()];
  const [progress, body, title, views] = [".progress", "tbody", "h4", ".views"].map((s) => root.querySelector(s));
  const joint = aggregate === "max" ? "Largest" : "Mean";
  const all = count === 1 ? "1 view" : `${count} views`;
  progress.textContent = done.length < count ? `${joint} of ${done.length} of ${all}; scoring…` : `${joint} of ${all}`;
  root.setAttribute("aria-busy", String(done.length < count));
  if (!done.length) return body.replaceChildren();
  const joined = classes.map((_, k) => {
    const found = done.map((probabilities) => probabilities[k]);
    return aggregate === "max" ? Math.max(...found) : found.reduce((a, b) => a + b, 0) / found.length;
  });
  const order = classes.map((_, k) => k).sort((a, b) => joined[b] - joined[a] || a - b);
  body.replaceChildren(
    ...order.slice(0, 5).map((k) => {
      const cells = [joined[k], scores.get(view)?.[k]].map((p) => html("td", {}, ...(p === undefined ? ["…"] : meter(p))));
      return html("tr", {}, html("th", { scope: "row" }, classes[k]), ...cells);
    }),
  );
  title.textContent = count > 1 ? `${classes[order[0]]}, view by view` : "";
  views.replaceChildren();
  for (let v = 0; count > 1 && v < count; v += 1) views.append(viewButton(v, scores.get(v)?.[order[0]], { view, choose, offered }));
}

function meter(value) {
  const bar = html("span", { className: "bar" }, html("i", {}));
  bar.firstChild.style.width = percent(value).replace(" ", "");
  return [bar, html("span", { className: "number" }, percent(value))];
}

function viewButton(v, probability, { view, choose, offered }) {
  const words = probability === undefined ? "not scored yet" : percent(probability);
  const button = html("button", { type: "button", title: `view ${v + 1}: ${words}`, disabled: !offered.includes(v) }, html("i", {}));
  button.setAttribute("aria-label", `View ${v + 1}, ${words}`);
  button.setAttribute("aria-pressed", String(v === view));
  button.firstChild.style.height = `${100 * (probability ?? 0)}%`;
  button.addEventListener("click", () => choose(v));
  return button;
}
