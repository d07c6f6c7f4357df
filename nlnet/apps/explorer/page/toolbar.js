// The toolbar above the figure: its controls show the state and change it.

import { html } from "./lists.js";

const byId = (id) => document.getElementById(id);

// Connect the controls, once. `set(patch)` changes the state; `current()` returns the {clip, crop} that are shown.
export function connectToolbar(set, current) {
  const picked = { run: (value) => ({ run: value, at: null }), with: (value) => ({ with: value }), video: (value) => ({ video: value, at: null }) };
  for (const [id, patch] of Object.entries(picked)) {
    byId(id).addEventListener("change", (event) => set(patch(Number(event.target.value))));
  }
  for (const [id, axis, direction] of [
    ["clip-back", "clip", -1],
    ["clip-on", "clip", 1],
    ["crop-back", "crop", -1],
    ["crop-on", "crop", 1],
  ]) {
    byId(id).addEventListener("click", () => set({ [axis]: current()[axis] + direction }));
  }
  byId("sign").addEventListener("change", (event) => set({ sign: event.target.value }));
  byId("top").addEventListener("input", (event) => set({ top: Number(event.target.value) }));
  for (const id of ["heat", "arrows"]) byId(id).addEventListener("change", (event) => set({ [id]: event.target.checked }));
  byId("theme").addEventListener("change", (event) => set({ theme: event.target.value }));
  byId("toolbar").addEventListener("submit", (event) => event.preventDefault());
}

// Show the state in the controls. `exported`: the page has one view of each video, so clip and crop cannot be changed.
export function drawToolbar({ state, index, facts, clip, crop, signed, exported }) {
  options(byId("video"), index.videos, state.video);
  options(byId("run"), index.runs.map((run) => run.name), state.run);
  options(byId("with"), ["nothing", ...index.runs.map((run) => run.name)], state.with, -1);
  byId("with-field").hidden = index.runs.length < 2;
  for (const [axis, now, count] of [
    ["clip", clip, facts.clips],
    ["crop", crop, facts.crops],
  ]) {
    byId(axis).textContent = `${now + 1} / ${count}`;
    byId(`${axis}-back`).disabled = exported || now === 0;
    byId(`${axis}-on`).disabled = exported || now === count - 1;
    byId(axis).parentElement.title = exported ? "This page contains one view of each video" : "";
  }
  for (const radio of byId("sign").querySelectorAll("input")) {
    radio.checked = radio.value === (signed ? state.sign : "positive");
    radio.disabled = !signed && radio.value === "negative";
  }
  byId("sign").title = signed ? "" : "This block's weights are never negative";
  byId("top").value = state.top;
  byId("top-shown").textContent = state.top;
  byId("heat").checked = state.heat;
  byId("arrows").checked = state.arrows;
  byId("theme").value = state.theme;
  document.documentElement.dataset.theme = state.theme;
}

// Fill a <select> with names numbered from `first`, if they have changed.
function options(select, names, chosen, first = 0) {
  if (select.dataset.names !== names.join("\n")) {
    select.replaceChildren(...names.map((name, i) => html("option", { value: String(i + first) }, name)));
    select.dataset.names = names.join("\n");
  }
  select.value = String(chosen);
}
