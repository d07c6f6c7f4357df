// The list of blocks and the table of the strongest keys below the figure.

import { formatCoordinate, formatPercent, formatWeight, magnitude, total } from "./geometry.js";
import { thumbnail } from "./heatmap.js";

// Make an HTML element from properties, attributes and children.
export function html(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// The module after which a block was inserted: its path without ".nonlocal_block".
export function blockName(path) {
  return path.replace(/\.?nonlocal_block$/, "") || path;
}

// A radio button for each block, with a thumbnail of its weights. `choose(path)` is called when one is selected.
export function drawBlocks(list, { blocks, rows, chosen, sign, top, name, choose }) {
  const focused = list.contains(document.activeElement);
  list.replaceChildren(
    ...blocks.map(({ path, keys, pairwise, signed, exact }) => {
      const shown = signed ? sign : "positive";
      const radio = html("input", { type: "radio", name, value: path, checked: path === chosen });
      radio.addEventListener("change", () => choose(path));
      const { weights } = rows[path];
      const picture = html("img", { src: thumbnail(weights, keys, shown), alt: "" });
      const grid = keys.map((axis) => axis.length).join("×");
      const share = shareOfLargest(weights, shown, top);
      const facts = html(
        "span",
        { className: "facts", title: `${pairwise.replaceAll("_", " ")}; keys: frames×rows×columns` },
        html("span", {}, `${grid} keys`),
        html("span", { className: "number" }, `top ${top}: ${formatPercent(share)}`),
      );
      const label = html("span", { className: "name" }, blockName(path));
      const estimated = exact ? [] : [html("span", { className: "guess" }, "positions estimated")];
      return html("label", { className: "block" }, radio, label, ...estimated, picture, facts);
    }),
  );
  // the buttons are new elements: the focus would be lost, and with it the arrow keys that step through them
  if (focused) list.querySelector("input:checked")?.focus();
}

// The share of the `count` largest weights in the sum of all weights of a sign.
function shareOfLargest(weights, sign, count) {
  const sum = total(weights, sign);
  if (sum === 0) return 0;
  const largest = Array.from(weights, (weight) => magnitude(weight, sign)).sort((a, b) => b - a);
  return largest.slice(0, count).reduce((a, b) => a + b, 0) / sum;
}

// A table row for each key, strongest first. `point(key)` is called when the pointer enters a row, `point(null)` when
// it leaves.
export function drawKeys(body, keys, point) {
  body.replaceChildren(
    ...keys.map((key, i) => {
      const row = html("tr", {}, html("td", {}, String(i + 1)), ...key.at.map((value) => html("td", {}, formatCoordinate(value))));
      row.append(html("td", {}, formatWeight(key.weight)));
      row.addEventListener("pointerenter", () => point(key));
      row.addEventListener("pointerleave", () => point(null));
      return row;
    }),
  );
  if (!keys.length) body.append(html("tr", {}, html("td", { colSpan: 5 }, "no key has a weight of this sign")));
}
