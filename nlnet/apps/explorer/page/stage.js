// The frames as a place to ask from: pointer and keys make positions of a pane's clip, and a tip tells what lies there.

import { keyAt, shownPlace, shownWeight, stepped } from "./scene.js";

const MOVES = { ArrowUp: [1, -1], ArrowDown: [1, 1], ArrowLeft: [2, -1], ArrowRight: [2, 1], PageUp: [0, -1], PageDown: [0, 1] };

// Make what is pressed and pointed at on a pane's frames its query.
export function listen(pane) {
  const { stage } = pane;
  stage.addEventListener("pointerdown", (event) => {
    const at = under(pane, event);
    if (at && event.button === 0) pane.query(at);
  });
  stage.addEventListener("pointermove", (event) => {
    const at = under(pane, event);
    tip(pane, at, event);
    if (at && event.buttons === 1 && at.join() !== pane.questions.wanted?.join()) pane.query(at);
  });
  stage.addEventListener("pointerleave", () => tip(pane, null));
  stage.addEventListener("keydown", (event) => {
    const at = reached(pane, event);
    if (!at) return;
    event.preventDefault();
    pane.query(at);
  });
  const screen = pane.part(".screen");
  screen.addEventListener("pointerdown", (event) => {
    const box = screen.getBoundingClientRect();
    const at = pane.clip && pane.player.figure.place(event.clientX - box.left, event.clientY - box.top);
    if (at && pane.blocks?.length) pane.query([pane.player.now, at[1], at[2]]);
  });
}

function under({ clip, blocks, figure }, event) {
  if (!clip || !blocks?.length) return null;
  const box = figure.svg.getBoundingClientRect();
  return figure.place(event.clientX - box.left, event.clientY - box.top);
}

// The position that a key moves the query to, or null for other keys.
function reached(pane, event) {
  if (!pane.answer || event.ctrlKey || event.metaKey || event.altKey) return null;
  const at = [...pane.answer.at];
  const ends = { Home: 0, End: pane.clip.size[0] - 1 };
  if (event.key in ends) {
    at[0] = ends[event.key];
    return at;
  }
  if (!(event.key in MOVES)) return null;
  const [axis, direction] = MOVES[event.key];
  const size = pane.clip.size[axis];
  const byOne = Math.min(Math.max(at[axis] + direction, 0), size - 1);
  const single = axis === 0 || event.shiftKey;
  at[axis] = single ? byOne : stepped(at[axis], pane.block().queries[axis], direction, size);
  return at;
}

// A small text at the pointer: the key under it and its weight.
function tip(pane, at, event) {
  const { stage, shown, answer } = pane;
  const text = pane.part(".tip");
  text.hidden = !at || !shown || !answer;
  if (text.hidden) return;
  const key = keyAt(shown.weights, shown.keys, at);
  text.textContent = `weight ${shownWeight(key.weight)} · key at ${key.at.map(shownPlace).join(", ")}`;
  const box = stage.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  text.style.left = `${Math.min(x + 14, box.width - text.offsetWidth)}px`;
  text.style.top = `${y + 18}px`;
}
