// A pane shows one run: the figure with the query, the list of blocks, the strongest keys, the player and the
// predictions. Two panes compare two runs.

import { Figure } from "./figure.js";
import { formatCoordinate, formatWeight, largestMagnitude, rescaled, strongestKeys } from "./geometry.js";
import { heatMaps } from "./heatmap.js";
import { listenToInput } from "./input.js";
import { blockName, drawBlocks, drawKeys, html } from "./lists.js";
import { Player } from "./player.js";
import { Predictions } from "./predictions.js";
import { LatestRequest } from "./requests.js";

const ESTIMATED = "A layer before this block moves the cells of its map in a way that cannot be traced back to the clip, so the positions of its keys are estimated from the sizes of the maps";

export class Pane {
  // `set(patch)` changes the page's state; `size()` is the size of the first run's clip, in which the state's query is.
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
      (message) => this.setNotice("scores", message),
    );
    this.rowRequests = new LatestRequest(
      (at) => source.rows(this.run, this.state.video, this.view, at),
      (answer, at, last) => this.receive({ ...answer, asked: at }, last),
      (error) => this.setNotice("rows", error.message),
    );
    this.notices = {};
    listenToInput(this);
    this.resized = new ResizeObserver(() => this.clip && this.width !== this.stage.clientWidth && this.layOut());
    this.resized.observe(this.stage);
  }

  close() {
    this.key = "";
    this.rowRequests.forget();
    this.predictions.close();
    this.player.halt();
    this.resized.disconnect();
    this.root.remove();
  }

  // Load the view that the state asks for, unless it is loaded already.
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

  // After each response `key` tells whether the pane has been sent to another view meanwhile.
  async load(run, video, view, key) {
    this.clip = this.blocks = this.answer = null;
    delete this.stage.dataset.answer;
    this.rowRequests.forget();
    this.notices = {};
    this.setNotice("view", "");
    this.root.classList.add("loading");
    try {
      this.setBusy("Reading the video…");
      const clip = await this.source.clip(run, video, view);
      if (key !== this.key) return;
      this.clip = clip;
      this.layOut();
      this.setBusy("Running the network…");
      const blocks = await this.source.blocks(run, video, view);
      if (key !== this.key) return;
      this.blocks = blocks;
      if (!blocks.length) this.setNotice("view", "This network has no non-local block: it has predictions, but no attention to show.");
    } catch (error) {
      if (key === this.key) this.setNotice("view", error.message);
    }
    if (key !== this.key) return;
    this.setBusy("");
    this.root.classList.remove("loading");
  }

  setBusy(words) {
    this.part(".busy").textContent = words;
  }

  // Show why something is missing. `what` is "view", "rows" or "scores"; the message "" removes its notice.
  setNotice(what, message) {
    this.notices[what] = message;
    const text = [...new Set(Object.values(this.notices))].filter(Boolean).join(" ");
    const notice = this.part(".notice");
    if (notice.textContent !== text) notice.textContent = text; // an equal text would be read aloud again
  }

  layOut() {
    this.width = this.stage.clientWidth;
    if (!this.width) return; // not on the screen; the ResizeObserver calls again when it is
    this.figure.setClip(this.clip, this.width);
    this.player.setClip(this.clip, Math.min(this.part(".player").clientWidth, 288));
    this.player.show(this.player.playing ? this.player.now : Math.max(this.state.frame, 0));
    this.stage.setAttribute(
      "aria-label",
      `${this.clip.frames.length} frames of the clip. Arrow keys move the query, Page Up and Page Down change the frame.`,
    );
    if (this.answer) this.draw(this.state);
  }

  // The selected block of this run, or its last one if it has no block of that path.
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

  // Request the attention from a position of this run's clip. The promise is fulfilled when the latest request is done.
  async ask(at) {
    if (this.blocks?.length) await this.rowRequests.ask(at);
  }

  // Store an answer. While a newer request waits, as during a drag, it is drawn at once; else `app.js` draws all panes.
  receive(answer, last) {
    this.answer = answer;
    this.setNotice("rows", "");
    if (!last) this.draw(this.state);
  }

  draw(state) {
    this.state = state;
    this.root.classList.toggle("no-blocks", !this.blocks?.length);
    this.drawPredictions();
    const block = this.block();
    if (!this.answer || !block) {
      this.figure.frames && this.figure.draw(null);
      return;
    }
    const { weights, centre } = this.answer.rows[block.path];
    const sign = this.sign();
    const strongest = strongestKeys(weights, block.keys, sign, state.top);
    const heat = state.heat ? heatMaps(weights, block.keys, sign, this.clip.size) : null;
    this.shown = { at: this.answer.at, centre, keys: block.keys, heat, strongest, sign, arrows: state.arrows, weights };
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
    drawKeys(this.part(".keys tbody"), strongest, (key) => this.highlight(key));
    this.stage.dataset.answer = this.answer.asked.join(",");
    this.stage.dataset.block = block.path;
  }

  // The line below the figure: block and query, the scale of the heat map, and buttons for suggested queries.
  drawReading(block) {
    const { at, centre, strongest, sign, weights } = this.shown;
    const cell = html("span", { className: "cell" }, `cell centre ${centre.map(formatCoordinate).join(", ")}`);
    this.part(".query").replaceChildren(
      `${blockName(block.path)} from frame ${at[0]}, row ${at[1]}, column ${at[2]}`,
      cell,
      ...(block.exact ? [] : [html("span", { className: "estimated", title: ESTIMATED }, "positions estimated from map sizes")]),
    );
    this.part(".legend i").className = sign;
    this.part(".legend .peak").textContent = formatWeight(strongest.length ? strongest[0].weight : largestMagnitude(weights, sign));
    const buttons = block.strongest.map((position, i) => {
      const here = position.join() === this.answer.at.join();
      const button = html("button", { type: "button", title: `frame ${position[0]}, row ${position[1]}, column ${position[2]}` }, String(i + 1));
      button.setAttribute("aria-label", `Position ${i + 1} of those that the block changes most`);
      button.setAttribute("aria-pressed", String(here));
      button.addEventListener("click", () => this.query(position));
      return button;
    });
    const group = this.part(".suggestions");
    const focused = [...group.querySelectorAll("button")].indexOf(document.activeElement);
    group.replaceChildren(html("span", {}, "Most changed positions"), ...buttons);
    if (focused >= 0) buttons[focused]?.focus(); // the buttons are new elements
  }

  // One or two sentences for screen readers.
  describe() {
    if (!this.answer || this.notices.rows) return ""; // the notice is read aloud instead
    const { at, strongest } = this.shown;
    const position = ([t, y, x]) => `frame ${formatCoordinate(t)}, row ${formatCoordinate(y)}, column ${formatCoordinate(x)}`;
    const keys = strongest.slice(0, 3).map((key) => `${position(key.at)}, weight ${formatWeight(key.weight)}`);
    const run = this.number || this.state.with >= 0 ? `${this.facts.name}: ` : "";
    const estimated = this.block().exact ? "" : " Positions are estimated from map sizes.";
    return `${run}query at ${position(at)}. ${blockName(this.block().path)} looks most at ${keys.join("; ") || "nothing"}.${estimated}`;
  }

  drawPredictions() {
    const { run, facts, view } = this;
    const { video } = this.state;
    // the second pane shows the view of the first, so no view can be selected in it
    const offered = this.number ? [] : this.source.views(run, video, facts.clips * facts.crops);
    this.predictions.show({ run, video, facts, view, offered });
  }

  predict() {
    if (this.clip) this.predictions.score();
  }

  // Make a position of this clip the query of the page.
  query(at) {
    this.set({ at: rescaled(at, this.clip.size, this.size()), frame: -1 });
  }

  // Highlight the mark of a key in the figure; null highlights none.
  highlight(key) {
    const wanted = key?.at.join(",");
    for (const mark of this.root.querySelectorAll(".key")) mark.classList.toggle("highlighted", mark.dataset.at === wanted);
  }

  // The figure and its caption for the picture that can be downloaded.
  forDownload() {
    const { at, strongest } = this.shown;
    const words = [this.facts.name, blockName(this.block().path), `from (${at.map(formatCoordinate).join(", ")})`, `strongest ${strongest.length} keys`];
    return { svg: this.figure.svg, text: words.join(" · ") };
  }
}
