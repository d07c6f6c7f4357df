// The arrows of the explorer: from the star at the query to the marks of the strongest keys. All SVG; colours are
// attributes and not style sheets, so that a downloaded picture keeps them.

const SVG = "http://www.w3.org/2000/svg";
const ARROW_COLOUR = { positive: "#ff7a1a", negative: "#2f7bff" };
const OUTLINE = "#101114";

export function svgElement(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// An arrow that ends at the rim of the key's mark (of that radius); dashed if the weight is negative. Opacity and width
// grow with `strength`, weight / largest weight.
export function arrow(from, to, radius, strength, sign) {
  const length = Math.hypot(to.x - from.x, to.y - from.y);
  const group = svgElement("g", { class: "arrow", opacity: Math.max(0.08, Math.sqrt(strength)) });
  if (length < radius + 10) return group; // no room for a head between the star and the mark
  const [ux, uy] = [(to.x - from.x) / length, (to.y - from.y) / length];
  const [tipX, tipY] = [to.x - ux * (radius + 1), to.y - uy * (radius + 1)];
  const [backX, backY] = [tipX - ux * 7, tipY - uy * 7];
  const line = { x1: from.x, y1: from.y, x2: backX, y2: backY };
  const width = 1 + 1.6 * strength;
  const head = `M${tipX} ${tipY} L${backX - uy * 3.5} ${backY + ux * 3.5} L${backX + uy * 3.5} ${backY - ux * 3.5} Z`;
  const dashes = sign === "negative" ? { "stroke-dasharray": "6 3" } : {};
  group.append(
    // a wider dark line below keeps the arrow visible on any frame
    svgElement("line", { ...line, stroke: OUTLINE, "stroke-width": width + 2, "stroke-opacity": 0.45 }),
    svgElement("line", { ...line, stroke: ARROW_COLOUR[sign], "stroke-width": width, ...dashes }),
    svgElement("path", { d: head, fill: ARROW_COLOUR[sign], stroke: OUTLINE, "stroke-width": 0.75, "stroke-opacity": 0.6 }),
  );
  return group;
}

// The mark of a key: a circle, or a square if the weight is negative.
export function keyMark({ x, y }, radius, sign) {
  const paint = { class: "key", fill: ARROW_COLOUR[sign], stroke: "#fff", "stroke-width": 1.25, "paint-order": "stroke" };
  if (sign === "positive") return svgElement("circle", { cx: x, cy: y, r: radius, ...paint });
  const side = radius * 1.8;
  return svgElement("rect", { x: x - side / 2, y: y - side / 2, width: side, height: side, ...paint });
}

// The star at the query.
export function queryStar({ x, y }) {
  const points = Array.from({ length: 10 }, (_, i) => {
    const [angle, radius] = [(Math.PI / 5) * i - Math.PI / 2, i % 2 ? 4 : 9.5];
    return `${(x + radius * Math.cos(angle)).toFixed(2)},${(y + radius * Math.sin(angle)).toFixed(2)}`;
  });
  return svgElement("polygon", { class: "star", points: points.join(" "), fill: "#fff", stroke: OUTLINE, "stroke-width": 1.5 });
}
