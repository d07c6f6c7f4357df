// Where answers come from: the server, or the file itself. Both give the same.

import { nearest } from "./scene.js";

export function openSource() {
  const kept = document.getElementById("kept");
  return kept ? new Kept(JSON.parse(kept.textContent)) : new Served();
}

function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// `nlnet explore` answers while it runs.
class Served {
  live = true;

  async index() {
    return this.ask("index", {});
  }

  async clip(run, video, view) {
    return this.ask("clip", { run, video, view });
  }

  async blocks(run, video, view) {
    return this.ask("blocks", { run, video, view });
  }

  // {at, rows: {path: {centre, weights}}}
  async rows(run, video, view, at) {
    const rows = await this.ask("rows", { run, video, view, at: at.join(",") });
    for (const row of Object.values(rows)) row.weights = new Float32Array(bytesOf(row.weights).buffer);
    return { at, rows };
  }

  async scores(run, video, view) {
    return this.ask("scores", { run, video, view });
  }

  views(run, video, count) {
    return Array.from({ length: count }, (_, view) => view);
  }

  async upload(file) {
    const headers = { "X-File-Name": encodeURIComponent(file.name), "Content-Type": "application/octet-stream" };
    return this.answer(fetch("api/videos", { method: "POST", headers, body: file }));
  }

  async ask(what, values) {
    return this.answer(fetch(`api/${what}?${new URLSearchParams(values)}`));
  }

  async answer(request) {
    let response;
    try {
      response = await request;
    } catch {
      throw new Error("The explorer does not answer. Is nlnet explore still running?");
    }
    const value = await response.json().catch(() => ({ error: `The answer cannot be read (${response.status}).` }));
    if (!response.ok) throw new Error(value.error);
    return value;
  }
}

// `nlnet explore --export` wrote the answers into this page: one view of each video, and a grid of positions.
class Kept {
  live = false;

  constructor(kept) {
    this.kept = kept;
  }

  entry(run, video) {
    return this.kept.entries[`${run}/${video}`];
  }

  async index() {
    return this.kept;
  }

  async clip(run, video) {
    return this.entry(run, video).clip;
  }

  async blocks(run, video) {
    return this.entry(run, video).blocks;
  }

  // Of the kept position that is nearest to `at`.
  async rows(run, video, view, at) {
    const { places, rows, blocks } = this.entry(run, video);
    const indices = at.map((value, axis) => nearest(value, places[axis]));
    const found = {};
    for (const { path, keys } of blocks) {
      const row = rows[path];
      row.data ??= row.signed ? new Int8Array(bytesOf(row.bytes).buffer) : bytesOf(row.bytes);
      row.scale ??= new Float32Array(bytesOf(row.factors).buffer);
      const cell = indices.map((i, axis) => row.cells[axis][i]);
      const number = (cell[0] * row.centres[1].length + cell[1]) * row.centres[2].length + cell[2];
      const count = keys[0].length * keys[1].length * keys[2].length;
      const levels = row.data.subarray(number * count, (number + 1) * count);
      found[path] = {
        centre: cell.map((rank, axis) => row.centres[axis][rank]),
        weights: Float32Array.from(levels, (level) => level * row.scale[number]),
      };
    }
    return { at: indices.map((i, axis) => places[axis][i]), rows: found };
  }

  async scores(run, video, view) {
    return this.entry(run, video).scores[view];
  }

  views(run, video) {
    return [this.entry(run, video).view];
  }
}
