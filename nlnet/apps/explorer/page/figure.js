// The clip as a figure: its frames as one SVG, with a heat map on each, a star at the query and arrows to the keys.

import { arrow, keyMark, queryStar, svgElement } from "./arrows.js";
import { nearest } from "./geometry.js";

const GAP = 8;
const CAPTION = 20;
const SMALLEST = 104;
const LARGEST = 256;

// The time of a frame of the clip in its video: seconds, or the number of the frame if the frame rate is unknown.
export function frameTime({ seconds, numbers }, t) {
  return seconds ? `${seconds[t].toFixed(2)} s` : `no. ${numbers[t]}`;
}

// The top left corners of the frames in a figure of a given width: rows of equal length if possible, and frames between
// `SMALLEST` and `LARGEST` pixels wide.
export function frameLayout([frames, height, width], room) {
  const most = Math.max(1, Math.floor((room + GAP) / (SMALLEST + GAP)));
  const rows = Math.ceil(frames / most);
  const columns = Math.ceil(frames / rows);
  const side = Math.min(LARGEST, (room - GAP * (columns - 1)) / columns);
  const scale = side / width;
  const pitch = [side + GAP, height * scale + CAPTION + GAP];
  return {
    scale,
    height: rows * pitch[1] - GAP,
    boxes: Array.from({ length: frames }, (_, t) => ({
      x: (t % columns) * pitch[0],
      y: Math.floor(t / columns) * pitch[1],
    })),
  };
}

// A figure in an <svg>. With `stacked` all frames are in one place and one is visible at a time, else they are in rows.
export class Figure {
  constructor(svg, { stacked = false } = {}) {
    this.svg = svg;
    this.stacked = stacked;
    svg.setAttribute("font-family", "system-ui, sans-serif");
  }

  // Lay the frames of a clip out in a width of `room` pixels.
  setClip(clip, room) {
    this.clip = clip;
    const [frames, height, width] = clip.size;
    if (this.stacked) {
      const scale = room / width;
      const boxes = clip.frames.map(() => ({ x: 0, y: 0 }));
      this.layout = { scale, boxes, height: height * scale };
    } else {
      this.layout = frameLayout(clip.size, room);
    }
    const { scale, boxes } = this.layout;
    this.size = [Math.round(Math.max(...boxes.map((box) => box.x)) + width * scale), Math.ceil(this.layout.height)];
    this.svg.setAttribute("width", this.size[0]);
    this.svg.setAttribute("height", this.size[1]);
    this.svg.setAttribute("viewBox", `0 0 ${this.size[0]} ${this.size[1]}`);
    this.frames = boxes.map((box, t) => this.frame(box, t));
    this.arrows = svgElement("g", { class: "arrows" });
    this.svg.replaceChildren(...this.frames.map((frame) => frame.group), this.arrows);
    for (let t = 0; t < frames; t += 1) this.frames[t].group.setAttribute("data-frame", t);
  }

  // The SVG elements of one frame: its image, a group for its heat map, a group for marks, and its caption.
  frame({ x, y }, t) {
    const [, height, width] = this.clip.size;
    const { scale } = this.layout;
    const image = svgElement("image", {
      href: this.clip.frames[t],
      width,
      height,
      "image-rendering": scale > 1.5 ? "pixelated" : "auto",
    });
    const heat = svgElement("g", { class: "heat" });
    // an inner <svg> in units of the clip's pixels; it also cuts off a heat map at the edges of the frame
    const inside = svgElement(
      "svg",
      { class: "picture", x, y, width: width * scale, height: height * scale, viewBox: `0 0 ${width} ${height}` },
      image,
      heat,
    );
    const marks = svgElement("g", { class: "marks" });
    const group = svgElement("g", { class: "frame" }, inside, marks);
    if (!this.stacked) {
      const text = svgElement("text", {
        class: "caption",
        x,
        y: y + height * scale + 14,
        "font-size": 12,
        fill: "currentColor",
        "fill-opacity": 0.72,
      });
      text.append(`${t} · ${frameTime(this.clip, t)}`);
      group.append(text);
    }
    return { group, heat, marks };
  }

  // Make frame t of a stacked figure the visible one.
  show(t) {
    this.frames.forEach(({ group }, i) => group.setAttribute("display", i === t ? "inline" : "none"));
  }

  // The point of the figure at a position of the clip: {frame, x, y}.
  pointAt([t, y, x]) {
    const frame = nearest(t, this.frames.map((_, i) => i));
    const box = this.layout.boxes[frame];
    return { frame, x: box.x + (x + 0.5) * this.layout.scale, y: box.y + (y + 0.5) * this.layout.scale };
  }

  // The position [t, y, x] of the clip at a point of the figure, or null outside of the frames.
  positionAt(px, py) {
    const [, height, width] = this.clip.size;
    const { scale, boxes } = this.layout;
    for (let t = 0; t < boxes.length; t += 1) {
      const [x, y] = [(px - boxes[t].x) / scale, (py - boxes[t].y) / scale];
      if (x >= 0 && y >= 0 && x < width && y < height) return [t, Math.floor(y), Math.floor(x)];
    }
    return null;
  }

  // Draw the attention from a query, {at, keys, heat or null, strongest, sign, arrows}; null removes it.
  draw(attention) {
    for (const { heat, marks } of this.frames) {
      heat.replaceChildren();
      marks.replaceChildren();
    }
    this.arrows.replaceChildren();
    if (!attention) return;
    if (attention.heat) this.drawHeat(attention);
    const star = this.pointAt(attention.at);
    if (attention.arrows) {
      const most = Math.max(...attention.strongest.map((key) => Math.abs(key.weight)), 0);
      // weakest first, so that the strongest arrows lie on top
      for (const key of [...attention.strongest].reverse()) this.drawKey(star, key, Math.abs(key.weight) / most, attention.sign);
    }
    this.frames[star.frame].marks.append(queryStar(star));
    if (!this.stacked) this.arrows.append(queryStar(star)); // once more, above the arrows
  }

  // Put on each frame the heat map of the keys that are nearest in time.
  drawHeat({ heat, keys }) {
    this.frames.forEach((frame, t) => {
      const { url, ...box } = heat[nearest(t, keys[0])];
      const options = { preserveAspectRatio: "none", "image-rendering": "pixelated" };
      frame.heat.append(svgElement("image", { href: url, ...box, ...options }));
    });
  }

  // Draw the mark of a key and the arrow to it; no arrow in a stacked figure, where it would cross frames.
  drawKey(star, key, strength, sign) {
    const end = this.pointAt(key.at);
    const radius = 2.5 + 3.5 * Math.sqrt(strength);
    const mark = keyMark(end, radius, sign);
    mark.setAttribute("opacity", Math.max(0.3, Math.sqrt(strength)));
    mark.setAttribute("data-at", key.at.join(","));
    if (this.stacked) this.frames[end.frame].marks.append(mark);
    else this.arrows.append(arrow(star, end, radius, strength, sign), mark);
  }
}
