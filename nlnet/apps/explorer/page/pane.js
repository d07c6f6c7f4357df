// One run and what it makes of the view: the figure with its query, and the panels. Two panes compare two runs.

import { Figure, pngOf } from "./figure.js";
import { heatMaps } from "./heat.js";
import { Player, blockName, drawBlocks, drawKeys, drawPredictions, html } from "./panels.js";
import { fitted, keyAt, peak, shownPlace, shownWeight, stepped, strongest } from "./scene.js";

export class Pane {
  // `set(patch)` changes the page's state; `size()` is that of the first run's clip, in which the state's query is.
  constructor(number, source, set, size) {
    [this.number, this.source, this.set, this.size] = [number, source, set, size];
    this.root = document.getElementById("pane").content.firstElementChild.cloneNode(true);
    this.part = (selector) => this.root.querySelector(selector);
    this.stage = this.part(".stage");
    this.figure = new Figure(this.part(".strip"));
    this.player = new Player(this.part(".player"), (frame) => set({ frame }));
    this.scores = new Map();
    this.listen();
    this.resized = new ResizeObserver(() => this.clip && this.width !== this.stage.clientWidth && this.layOut());
    this.resized.observe(this.stage);
  }

  close() {
    this.key = this.scored = "";
    this.player.stop();
    this.resized.disconnect();
    this.root.remove();
  }

  // Load what the state asks for, unless it is here already.
  open(state, run, facts, view) {
    Object.assign(this, { state, run, facts });
    this.part("h2").textContent = facts.name;
    this.part(".pane-head .facts").textContent = facts.network;
    this.root.setAttribute("aria-label", `Run ${facts.name}`);
    const offered = this.source.views(run, state.video, facts.clips * facts.crops);
    this.view = offered.includes(view) ? view : offered[0];
    const key = `${run}/${state.video}/${this.view}`;
    if (key !== this.key) {
      this.key = key;
      this.loading = this.load(run, state.video, this.view, key);
    }
    return this.loading;
  }

  async load(run, video, view, key) {
    this.clip = this.blocks = this.answer = null;
    delete this.stage.dataset.answer;
    this.part(".notice").hidden = true;
    this.root.classList.add("loading");
    try {
      this.say("Reading the video…");
      const clip = await this.source.clip(run, video, view);
      if (key !== this.key) return;
      this.clip = clip;
      this.layOut();
      this.say("Running the network…");
      const blocks = await this.source.blocks(run, video, view);
      if (key !== this.key) return;
      this.blocks = blocks;
      if (!blocks.length) this.warn("This network has no non-local block: there is a prediction, but no row to look at.");
    } catch (error) {
      if (key === this.key) this.warn(error.message);
    }
    if (key !== this.key) return;
    this.say("");
    this.root.classList.remove("loading");
  }

  say(words) {
    this.part(".busy").textContent = words;
  }

  warn(words) {
    const notice = this.part(".notice");
    notice.textContent = words;
    notice.hidden = false;
  }

  layOut() {
    this.width = this.stage.clientWidth;
    if (!this.width) return; // not on screen; the observer calls again when it is
    this.figure.setClip(this.clip, this.width);
    this.player.setClip(this.clip, Math.min(this.part(".player").clientWidth, 288));
    this.player.show(Math.max(this.state.frame, 0));
    this.stage.setAttribute(
      "aria-label",
      `${this.clip.frames.length} frames of the clip. Arrow keys move the query, Page Up and Page Down change the frame.`,
    );
    if (this.answer) this.draw(this.state);
  }

  // The block that the state names, or the last one.
  block() {
    const wanted = [this.number && this.state?.block2, this.state?.block];
    for (const path of wanted) {
      const found = this.blocks?.find((block) => block.path === path);
      if (found) return found;
    }
    return this.blocks?.at(-1);
  }

  sign() {
    return this.block()?.signed ? this.state.sign : "positive";
  }

  // Ask for the rows of a position of this run's clip.
  async ask(at) {
    if (!this.blocks?.length) return;
    const key = this.key;
    try {
      const answer = await this.source.rows(this.run, this.state.video, this.view, at);
      if (key === this.key) this.answer = { ...answer, asked: at };
    } catch (error) {
      if (key === this.key) this.warn(error.message);
    }
  }

  draw(state) {
    this.state = state;
    this.root.classList.toggle("silent", !this.blocks?.length);
    this.drawScores();
    const block = this.block();
    if (!this.answer || !block) {
      this.figure.frames && this.figure.draw(null);
      return;
    }
    const { weights, centre } = this.answer.rows[block.path];
    const sign = this.sign();
    const picks = strongest(weights, block.keys, sign, state.top);
    const heat = state.heat ? heatMaps(weights, block.keys, sign, this.clip.size) : null;
    this.shown = { at: this.answer.at, centre, keys: block.keys, heat, picks, sign, arrows: state.arrows, weights };
    this.figure.draw(this.shown);
    this.player.figure.draw(this.shown);
    if (!this.player.playing) this.player.show(state.frame < 0 ? this.answer.at[0] : state.frame);
    this.drawReading(block);
    drawBlocks(this.part(".blocks .list"), {
      blocks: this.blocks,
      rows: this.answer.rows,
      chosen: block.path,
      sign: state.sign,
      top: state.top,
      name: `block-${this.number}`,
      choose: (path) => this.set(this.number ? { block2: path } : { block: path }),
    });
    drawKeys(this.part(".keys tbody"), picks, (pick) => this.point(pick));
    this.stage.dataset.answer = this.answer.asked.join(",");
    this.stage.dataset.block = block.path;
  }

  drawReading(block) {
    const { at, centre, picks, sign, weights } = this.shown;
    const cell = html("span", { className: "cell" }, `cell centre ${centre.map(shownPlace).join(", ")}`);
    this.part(".query").replaceChildren(
      `${blockName(block.path)} from frame ${at[0]}, row ${at[1]}, column ${at[2]}`,
      cell,
    );
    this.part(".legend i").className = sign;
    this.part(".legend .peak").textContent = shownWeight(picks.length ? picks[0].weight : peak(weights, sign));
    const buttons = block.strongest.map((position, i) => {
      const here = position.join() === this.answer.at.join();
      const button = html("button", { type: "button", title: `frame ${position[0]}, row ${position[1]}, column ${position[2]}` }, String(i + 1));
      button.setAttribute("aria-label", `Position ${i + 1} of those that the block changed most`);
      button.setAttribute("aria-pressed", String(here));
      button.addEventListener("click", () => this.query(position));
      return button;
    });
    const group = this.part(".suggestions");
    const focused = [...group.querySelectorAll("button")].indexOf(document.activeElement);
    group.replaceChildren(html("span", {}, "Changed most"), ...buttons);
    if (focused >= 0) buttons[focused]?.focus();
  }

  // A sentence or two for those who do not see the figure.
  spoken() {
    if (!this.answer) return this.part(".notice").hidden ? "" : this.part(".notice").textContent;
    const { at, picks } = this.shown;
    const place = ([t, y, x]) => `frame ${shownPlace(t)}, row ${shownPlace(y)}, column ${shownPlace(x)}`;
    const answers = picks.slice(0, 3).map((pick) => `${place(pick.at)}, weight ${shownWeight(pick.weight)}`);
    const run = this.number || this.state.with >= 0 ? `${this.facts.name}: ` : "";
    return `${run}query at ${place(at)}. ${blockName(this.block().path)} looks most at ${answers.join("; ") || "nothing"}.`;
  }

  // Score the views one after the other, the present one first, and show the bars as they come.
  async predict() {
    const key = `${this.run}/${this.state.video}`;
    if (key === this.scored || !this.clip) return;
    this.scored = key;
    this.scores = new Map();
    const count = this.facts.clips * this.facts.crops;
    const [run, video] = [this.run, this.state.video];
    const order = [this.view, ...Array.from({ length: count }, (_, v) => v).filter((v) => v !== this.view)];
    for (const view of order) {
      let probabilities;
      try {
        probabilities = await this.source.scores(run, video, view);
      } catch (error) {
        if (key === this.scored) this.warn(error.message);
        return;
      }
      if (key !== this.scored) return;
      this.scores.set(view, probabilities);
      this.drawScores();
    }
  }

  drawScores() {
    const { classes, aggregate, clips, crops } = this.facts;
    drawPredictions(this.part(".predictions"), {
      classes,
      aggregate,
      scores: this.scores,
      view: this.view,
      count: clips * crops,
      offered: this.number ? [] : this.source.views(this.run, this.state.video, clips * crops),
      choose: (view) => this.set({ clip: Math.floor(view / crops), crop: view % crops, at: null, frame: -1 }),
    });
  }

  // Make a position of this clip the page's query.
  query(at) {
    this.set({ at: fitted(at, this.clip.size, this.size()), frame: -1 });
  }

  listen() {
    const { stage } = this;
    stage.addEventListener("pointerdown", (event) => {
      const at = this.under(event);
      if (at && event.button === 0) this.query(at);
    });
    stage.addEventListener("pointermove", (event) => {
      const at = this.under(event);
      this.tip(at, event);
      if (at && event.buttons === 1) this.query(at);
    });
    stage.addEventListener("pointerleave", () => this.tip(null));
    stage.addEventListener("keydown", (event) => this.pressed(event));
    this.part(".screen").addEventListener("pointerdown", (event) => {
      const box = this.part(".screen").getBoundingClientRect();
      const at = this.clip && this.player.figure.place(event.clientX - box.left, event.clientY - box.top);
      if (at && this.blocks) this.query([this.player.now, at[1], at[2]]);
    });
  }

  under(event) {
    if (!this.clip || !this.blocks?.length) return null;
    const box = this.figure.svg.getBoundingClientRect();
    return this.figure.place(event.clientX - box.left, event.clientY - box.top);
  }

  pressed(event) {
    const moves = { ArrowUp: [1, -1], ArrowDown: [1, 1], ArrowLeft: [2, -1], ArrowRight: [2, 1], PageUp: [0, -1], PageDown: [0, 1] };
    const ends = { Home: 0, End: this.clip?.size[0] - 1 };
    if (!this.answer || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = [...this.answer.at];
    if (event.key in moves) {
      const [axis, direction] = moves[event.key];
      const size = this.clip.size[axis];
      const byOne = Math.min(Math.max(at[axis] + direction, 0), size - 1);
      const single = axis === 0 || event.shiftKey;
      at[axis] = single ? byOne : stepped(at[axis], this.block().queries[axis], direction, size);
    } else if (event.key in ends) {
      at[0] = ends[event.key];
    } else {
      return;
    }
    event.preventDefault();
    this.query(at);
  }

  // A small text at the pointer: the key under it and its weight.
  tip(at, event) {
    const tip = this.part(".tip");
    tip.hidden = !at || !this.shown || !this.answer;
    if (tip.hidden) return;
    const { weights, keys } = this.shown;
    const key = keyAt(weights, keys, at);
    tip.textContent = `weight ${shownWeight(key.weight)} · key at ${key.at.map(shownPlace).join(", ")}`;
    const box = this.stage.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    tip.style.left = `${Math.min(x + 14, box.width - tip.offsetWidth)}px`;
    tip.style.top = `${y + 18}px`;
  }

  // Set one key's mark off from the others.
  point(pick) {
    const wanted = pick?.at.join(",");
    for (const mark of this.root.querySelectorAll(".key")) mark.classList.toggle("pointed", mark.dataset.at === wanted);
  }

  async png() {
    const { at } = this.shown;
    const place = at.map(shownPlace).join(", ");
    const path = this.block().path;
    return pngOf(this.figure.svg, `${this.facts.name} · ${blockName(path)} · from (${place}) · strongest ${this.shown.picks.length} keys`);
  }
}
