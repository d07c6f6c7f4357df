// The clip as a picture: its frames, a heat map over each, a star at the query and arrows to the keys. All SVG, and
// all attributes, so that the picture stands alone when it is downloaded.

import { nearest } from "./scene.js";

const SVG = "http://www.w3.org/2000/svg";
const GAP = 8;
const CAPTION = 20;
const SMALLEST = 104;
const LARGEST = 256;
const INK = { positive: "#ff7a1a", negative: "#2f7bff" };
const DARK = "#101114";

export function element(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// When a frame of the clip is shown in its video: seconds, or its number where nobody says how fast they follow.
export function momentOf({ seconds, numbers }, t) {
  return seconds ? `${seconds[t].toFixed(2)} s` : `no. ${numbers[t]}`;
}

// Boxes of the frames in a width: rows of equal length where possible, frames neither tiny nor huge.
export function boxesOf([frames, height, width], room) {
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

// A figure in an <svg>: `stacked` shows one frame at a time, otherwise the frames stand in rows.
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
      this.layout = boxesOf(clip.size, room);
    }
    const { scale, boxes } = this.layout;
    this.size = [Math.round(Math.max(...boxes.map((box) => box.x)) + width * scale), Math.ceil(this.layout.height)];
    this.svg.setAttribute("width", this.size[0]);
    this.svg.setAttribute("height", this.size[1]);
    this.svg.setAttribute("viewBox", `0 0 ${this.size[0]} ${this.size[1]}`);
    this.frames = boxes.map((box, t) => this.frame(box, t));
    this.arrows = element("g", { class: "arrows" });
    this.svg.replaceChildren(...this.frames.map((frame) => frame.group), this.arrows);
    for (let t = 0; t < frames; t += 1) this.frames[t].group.setAttribute("data-frame", t);
  }

  frame({ x, y }, t) {
    const [, height, width] = this.clip.size;
    const { scale } = this.layout;
    const image = element("image", {
      href: this.clip.frames[t],
      width,
      height,
      "image-rendering": scale > 1.5 ? "pixelated" : "auto",
    });
    const heat = element("g", { class: "heat" });
    const inside = element(
      "svg",
      { class: "picture", x, y, width: width * scale, height: height * scale, viewBox: `0 0 ${width} ${height}` },
      image,
      heat,
    );
    const marks = element("g", { class: "marks" });
    const group = element("g", { class: "frame" }, inside, marks);
    if (!this.stacked) {
      const text = element("text", {
        class: "caption",
        x,
        y: y + height * scale + 14,
        "font-size": 12,
        fill: "currentColor",
        "fill-opacity": 0.72,
      });
      text.append(`${t} · ${momentOf(this.clip, t)}`);
      group.append(text);
    }
    return { group, heat, marks };
  }

  // Of several frames in one place, which is seen.
  show(t) {
    this.frames.forEach(({ group }, i) => group.setAttribute("display", i === t ? "inline" : "none"));
  }

  // Where a position of the clip is in the picture.
  point([t, y, x]) {
    const frame = nearest(t, this.frames.map((_, i) => i));
    const box = this.layout.boxes[frame];
    return { frame, x: box.x + (x + 0.5) * this.layout.scale, y: box.y + (y + 0.5) * this.layout.scale };
  }

  // The position of the clip under a point of the picture, or null beside the frames.
  place(px, py) {
    const [, height, width] = this.clip.size;
    const { scale, boxes } = this.layout;
    for (let t = 0; t < boxes.length; t += 1) {
      const [x, y] = [(px - boxes[t].x) / scale, (py - boxes[t].y) / scale];
      if (x >= 0 && y >= 0 && x < width && y < height) return [t, Math.floor(y), Math.floor(x)];
    }
    return null;
  }

  // Draw an answer: {at, keys, heat or null, picks, sign, arrows}; null takes it away.
  draw(answer) {
    for (const { heat, marks } of this.frames) {
      heat.replaceChildren();
      marks.replaceChildren();
    }
    this.arrows.replaceChildren();
    if (!answer) return;
    if (answer.heat) this.drawHeat(answer);
    const star = this.point(answer.at);
    if (answer.arrows) {
      const most = Math.max(...answer.picks.map((pick) => Math.abs(pick.weight)), 0);
      for (const pick of [...answer.picks].reverse()) this.drawPick(star, pick, Math.abs(pick.weight) / most, answer.sign);
    }
    this.frames[star.frame].marks.append(starAt(star));
    if (!this.stacked) this.arrows.append(starAt(star));
  }

  drawHeat({ heat, keys }) {
    this.frames.forEach((frame, t) => {
      const { url, ...box } = heat[nearest(t, keys[0])];
      const options = { preserveAspectRatio: "none", "image-rendering": "pixelated" };
      frame.heat.append(element("image", { href: url, ...box, ...options }));
    });
  }

  drawPick(star, pick, strength, sign) {
    const end = this.point(pick.at);
    const radius = 2.5 + 3.5 * Math.sqrt(strength);
    const mark = markAt(end, radius, sign);
    mark.setAttribute("opacity", Math.max(0.3, Math.sqrt(strength)));
    mark.setAttribute("data-at", pick.at.join(","));
    if (this.stacked) this.frames[end.frame].marks.append(mark);
    else this.arrows.append(arrow(star, end, radius, strength, sign), mark);
  }
}

// A line that ends in a head at the rim of the key's mark; dashed where the weight is negative.
function arrow(from, to, radius, strength, sign) {
  const length = Math.hypot(to.x - from.x, to.y - from.y);
  const group = element("g", { class: "arrow", opacity: Math.max(0.08, Math.sqrt(strength)) });
  if (length < radius + 10) return group;
  const [ux, uy] = [(to.x - from.x) / length, (to.y - from.y) / length];
  const [tipX, tipY] = [to.x - ux * (radius + 1), to.y - uy * (radius + 1)];
  const [backX, backY] = [tipX - ux * 7, tipY - uy * 7];
  const line = { x1: from.x, y1: from.y, x2: backX, y2: backY };
  const width = 1 + 1.6 * strength;
  const head = `M${tipX} ${tipY} L${backX - uy * 3.5} ${backY + ux * 3.5} L${backX + uy * 3.5} ${backY - ux * 3.5} Z`;
  const dashes = sign === "negative" ? { "stroke-dasharray": "6 3" } : {};
  group.append(
    element("line", { ...line, stroke: DARK, "stroke-width": width + 2, "stroke-opacity": 0.45 }),
    element("line", { ...line, stroke: INK[sign], "stroke-width": width, ...dashes }),
    element("path", { d: head, fill: INK[sign], stroke: DARK, "stroke-width": 0.75, "stroke-opacity": 0.6 }),
  );
  return group;
}

// A circle, or a square where the weight is negative.
function markAt({ x, y }, radius, sign) {
  const paint = { class: "key", fill: INK[sign], stroke: "#fff", "stroke-width": 1.25, "paint-order": "stroke" };
  if (sign === "positive") return element("circle", { cx: x, cy: y, r: radius, ...paint });
  const side = radius * 1.8;
  return element("rect", { x: x - side / 2, y: y - side / 2, width: side, height: side, ...paint });
}

function starAt({ x, y }) {
  const points = Array.from({ length: 10 }, (_, i) => {
    const [angle, radius] = [(Math.PI / 5) * i - Math.PI / 2, i % 2 ? 4 : 9.5];
    return `${(x + radius * Math.cos(angle)).toFixed(2)},${(y + radius * Math.sin(angle)).toFixed(2)}`;
  });
  return element("polygon", { class: "star", points: points.join(" "), fill: "#fff", stroke: DARK, "stroke-width": 1.5 });
}

// Figures as one PNG, twice as large as they are shown, on white, one under the other, each {svg, text} with its line
// of text below.
export async function pngOf(figures) {
  const margin = 16;
  const ground = element("rect", { width: "100%", height: "100%", fill: "#fff" });
  const sheet = element("svg", {}, ground);
  let [fullWidth, fullHeight] = [0, 0];
  for (const { svg, text } of figures) {
    const [width, height] = ["width", "height"].map((name) => Number(svg.getAttribute(name)));
    const copy = svg.cloneNode(true);
    const place = { x: margin, y: fullHeight + margin, color: "#1c1e22" };
    for (const [name, value] of Object.entries(place)) copy.setAttribute(name, value);
    fullWidth = Math.max(fullWidth, width + 2 * margin);
    fullHeight += height + 2 * margin + 24;
    const words = element("text", { x: margin, y: fullHeight - margin, "font-size": 13, fill: "#1c1e22" });
    words.setAttribute("font-family", "system-ui, sans-serif");
    words.append(text);
    sheet.append(copy, words);
  }
  sheet.setAttribute("width", fullWidth);
  sheet.setAttribute("height", fullHeight);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(sheet))}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * fullWidth, 2 * fullHeight];
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
