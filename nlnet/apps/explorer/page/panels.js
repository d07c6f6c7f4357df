// The panels beside the figure that show an answer: blocks and strongest keys. Each is given what it shows.

import { thumbnail } from "./heat.js";
import { part, percent, shownPlace, shownWeight, total } from "./scene.js";

export function html(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// A block's name for people: its path less the part that all blocks share.
export function blockName(path) {
  return path.replace(/\.?nonlocal_block$/, "") || path;
}

// Radio buttons, one for each block, with a thumbnail of its answer. `choose(path)` when one is taken.
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
      const share = massOf(weights, shown, top);
      const facts = html(
        "span",
        { className: "facts", title: `${pairwise.replaceAll("_", " ")}; keys: frames×rows×columns` },
        html("span", {}, `${grid} keys`),
        html("span", { className: "number" }, `top ${top}: ${percent(share)}`),
      );
      const label = html("span", { className: "name" }, blockName(path));
      const guess = exact ? [] : [html("span", { className: "guess" }, "places estimated")];
      return html("label", { className: "block" }, radio, label, ...guess, picture, facts);
    }),
  );
  if (focused) list.querySelector("input:checked")?.focus();
}

// The fraction of all weight of a sign that its `count` largest hold.
function massOf(weights, sign, count) {
  const sum = total(weights, sign);
  if (sum === 0) return 0;
  const largest = Array.from(weights, (weight) => part(weight, sign)).sort((a, b) => b - a);
  return largest.slice(0, count).reduce((a, b) => a + b, 0) / sum;
}

// A row a key, the strongest first. `point(pick or null)` while the pointer is on one.
export function drawKeys(body, picks, point) {
  body.replaceChildren(
    ...picks.map((pick, i) => {
      const row = html("tr", {}, html("td", {}, String(i + 1)), ...pick.at.map((value) => html("td", {}, shownPlace(value))));
      row.append(html("td", {}, shownWeight(pick.weight)));
      row.addEventListener("pointerenter", () => point(pick));
      row.addEventListener("pointerleave", () => point(null));
      return row;
    }),
  );
  if (!picks.length) body.append(html("tr", {}, html("td", { colSpan: 5 }, "no key has a weight of this sign")));
}
