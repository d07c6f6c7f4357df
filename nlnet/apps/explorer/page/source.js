// Where the page gets its answers: from the server, or from the exported file itself. Both sources have the same methods.

import { nearest } from "./geometry.js";

export function openSource() {
  const exported = document.getElementById("answers");
  return exported ? new ExportedSource(JSON.parse(exported.textContent)) : new ServerSource();
}

// The bytes of a base64 text.
function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// Answers of a running `nlnet explore`.
class ServerSource {
  live = true;

  async index() {
    return this.get("index", {});
  }

  async clip(run, video, view) {
    return this.get("clip", { run, video, view });
  }

  async blocks(run, video, view) {
    return this.get("blocks", { run, video, view });
  }

  // The weights of all blocks from a position: {at, rows: {path: {centre, weights}}}.
  async rows(run, video, view, at) {
    const rows = await this.get("rows", { run, video, view, at: at.join(",") });
    for (const row of Object.values(rows)) row.weights = new Float32Array(bytesOf(row.weights).buffer);
    return { at, rows };
  }

  async scores(run, video, view) {
    return this.get("scores", { run, video, view });
  }

  // The views that can be shown: all of them.
  views(run, video, count) {
    return Array.from({ length: count }, (_, view) => view);
  }

  async upload(file) {
    const headers = { "X-File-Name": encodeURIComponent(file.name), "Content-Type": "application/octet-stream" };
    return this.json(fetch("api/videos", { method: "POST", headers, body: file }));
  }

  async get(what, values) {
    return this.json(fetch(`api/${what}?${new URLSearchParams(values)}`));
  }

  // The JSON of a response; an Error with the server's message if it failed.
  async json(request) {
    let response;
    try {
      response = await request;
    } catch {
      throw new Error("The explorer does not answer. Is nlnet explore still running?");
    }
    const value = await response.json().catch(() => ({ error: `The response cannot be read (status ${response.status}).` }));
    if (!response.ok) throw new Error(value.error);
    return value;
  }
}

// Answers inside a file written by `nlnet explore --export`: one view of each video, and a grid of positions.
class ExportedSource {
  live = false;

  constructor(answers) {
    this.answers = answers;
  }

  entry(run, video) {
    return this.answers.entries[`${run}/${video}`];
  }

  async index() {
    return this.answers;
  }

  async clip(run, video) {
    return this.entry(run, video).clip;
  }

  async blocks(run, video) {
    return this.entry(run, video).blocks;
  }

  // As in ServerSource, for the exported position nearest to `at`. `exported_rows` in export.py describes the format.
  async rows(run, video, view, at) {
    const { positions, rows, blocks } = this.entry(run, video);
    const indices = at.map((value, axis) => nearest(value, positions[axis]));
    const found = {};
    for (const { path, keys } of blocks) {
      const row = rows[path];
      // decoded once, at the first click
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
    return { at: indices.map((i, axis) => positions[axis][i]), rows: found };
  }

  async scores(run, video, view) {
    return this.entry(run, video).scores[view];
  }

  // The views that can be shown: the exported one.
  views(run, video) {
    return [this.entry(run, video).view];
  }
}
