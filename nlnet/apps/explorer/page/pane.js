// One run and what it makes of the view: the figure with its query, and the panels. Two panes compare two runs.

import { Figure } from "./figure.js";
import { heatMaps } from "./heat.js";
import { Latest } from "./latest.js";
import { blockName, drawBlocks, drawKeys, html } from "./panels.js";
import { Player } from "./player.js";
import { Predictions } from "./predictions.js";
import { fitted, peak, shownPlace, shownWeight, strongest } from "./scene.js";
import { listen } from "./stage.js";

const GUESS = "The network moves cells before this block in a way that is not followed, so where its keys lie is estimated from the sizes of its maps";

export class Pane {
  // `set(patch)` changes the page's state; `size()` is that of the first run's clip, in which the state's query is.
  constructor(number, source, set, size) {
    [this.number, this.source, this.set, this.size] = [number, source, set, size];
    this.root = document.getElementById("pane").content.firstElementChild.cloneNode(true);
    this.part = (selector) => this.root.querySelector(selector);
    this.stage = this.part(".stage");
    this.figure = new Figure(this.part(".strip"));
    this.player = new Player(this.part(".player"), (frame) => set({ frame }));
    this.predictions = new Predictions(
      this.part(".predictions"),
      source,
      (view) => set({ clip: Math.floor(view / this.facts.crops), crop: view % this.facts.crops, at: null, frame: -1 }),
      (words) => this.tell("scores", words),
    );
    this.questions = new Latest(
      (at) => source.rows(this.run, this.state.video, this.view, at),
      (answer, at, last) => this.take({ ...answer, asked: at }, last),
      (error) => this.tell("rows", error.message),
    );
    this.news = {};
    listen(this);
    this.resized = new ResizeObserver(() => this.clip && this.width !== this.stage.clientWidth && this.layOut());
    this.resized.observe(this.stage);
  }

  close() {
    this.key = "";
    this.questions.forget();
    this.predictions.close();
    this.player.halt();
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
    this.questions.forget();
    this.news = {};
    this.tell("view", "");
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
      if (!blocks.length) this.tell("view", "This network has no non-local block: there is a prediction, but no row to look at.");
    } catch (error) {
      if (key === this.key) this.tell("view", error.message);
    }
    if (key !== this.key) return;
    this.say("");
    this.root.classList.remove("loading");
  }

  say(words) {
    this.part(".busy").textContent = words;
  }

  // What keeps something from being shown, by what that is: the "view", its "rows", its "scores"; "" when it is there.
  tell(what, words) {
    this.news[what] = words;
    const told = [...new Set(Object.values(this.news))].filter(Boolean).join(" ");
    const notice = this.part(".notice");
    if (notice.textContent !== told) notice.textContent = told;
  }

  layOut() {
    this.width = this.stage.clientWidth;
    if (!this.width) return; // not on screen; the observer calls again when it is
    this.figure.setClip(this.clip, this.width);
    this.player.setClip(this.clip, Math.min(this.part(".player").clientWidth, 288));
    this.player.show(this.player.playing ? this.player.now : Math.max(this.state.frame, 0));
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

  // Ask for the rows of a position of this run's clip. Done when the latest position asked for has its answer.
  async ask(at) {
    if (this.blocks?.length) await this.questions.ask(at);
  }

  // While a newer position waits for its answer, as under a moving pointer, an older one's is shown.
  take(answer, last) {
    this.answer = answer;
    this.tell("rows", "");
    if (!last) this.draw(this.state);
  }

  draw(state) {
    this.state = state;
    this.root.classList.toggle("silent", !this.blocks?.length);
    this.drawPredictions();
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
      ...(block.exact ? [] : [html("span", { className: "guess", title: GUESS }, "places estimated from sizes")]),
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
    if (!this.answer || this.news.rows) return ""; // the notice speaks for itself
    const { at, picks } = this.shown;
    const place = ([t, y, x]) => `frame ${shownPlace(t)}, row ${shownPlace(y)}, column ${shownPlace(x)}`;
    const answers = picks.slice(0, 3).map((pick) => `${place(pick.at)}, weight ${shownWeight(pick.weight)}`);
    const run = this.number || this.state.with >= 0 ? `${this.facts.name}: ` : "";
    return `${run}query at ${place(at)}. ${blockName(this.block().path)} looks most at ${answers.join("; ") || "nothing"}.${this.block().exact ? "" : " Places are estimated from sizes."}`;
  }

  drawPredictions() {
    const { run, facts, view } = this;
    const { video } = this.state;
    const offered = this.number ? [] : this.source.views(run, video, facts.clips * facts.crops);
    this.predictions.show({ run, video, facts, view, offered });
  }

  predict() {
    if (this.clip) this.predictions.score();
  }

  // Make a position of this clip the page's query.
  query(at) {
    this.set({ at: fitted(at, this.clip.size, this.size()), frame: -1 });
  }

  // Set one key's mark off from the others.
  point(pick) {
    const wanted = pick?.at.join(",");
    for (const mark of this.root.querySelectorAll(".key")) mark.classList.toggle("pointed", mark.dataset.at === wanted);
  }

  // The figure and the line under it, for the picture that can be downloaded.
  sheet() {
    const { at, picks } = this.shown;
    const words = [this.facts.name, blockName(this.block().path), `from (${at.map(shownPlace).join(", ")})`, `strongest ${picks.length} keys`];
    return { svg: this.figure.svg, text: words.join(" · ") };
  }
}
