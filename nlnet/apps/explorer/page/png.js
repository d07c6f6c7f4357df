// Save figures as a PNG picture.

import { svgElement } from "./arrows.js";

// Figures below each other on white as one PNG of twice their size on the screen. Each is {svg, text}; its text stands
// below it.
export async function pngOf(figures) {
  const margin = 16;
  const ground = svgElement("rect", { width: "100%", height: "100%", fill: "#fff" });
  const sheet = svgElement("svg", {}, ground);
  let [fullWidth, fullHeight] = [0, 0];
  for (const { svg, text } of figures) {
    const [width, height] = ["width", "height"].map((name) => Number(svg.getAttribute(name)));
    const copy = svg.cloneNode(true);
    const placed = { x: margin, y: fullHeight + margin, color: "#1c1e22" };
    for (const [name, value] of Object.entries(placed)) copy.setAttribute(name, value);
    fullWidth = Math.max(fullWidth, width + 2 * margin);
    fullHeight += height + 2 * margin + 24;
    const caption = svgElement("text", { x: margin, y: fullHeight - margin, "font-size": 13, fill: "#1c1e22" });
    caption.setAttribute("font-family", "system-ui, sans-serif");
    caption.append(text);
    sheet.append(copy, caption);
  }
  sheet.setAttribute("width", fullWidth);
  sheet.setAttribute("height", fullHeight);
  // a browser turns SVG into pixels only as an image drawn on a canvas
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(sheet))}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * fullWidth, 2 * fullHeight];
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
