// Mouse and keyboard on the frames: they choose the query, and a tooltip shows the key under the pointer.

import { formatCoordinate, formatWeight, nearestKey, nextCell } from "./geometry.js";

// For each key: the axis of the clip (0 is time, 1 is down, 2 is across) and the direction.
const MOVES = { ArrowUp: [1, -1], ArrowDown: [1, 1], ArrowLeft: [2, -1], ArrowRight: [2, 1], PageUp: [0, -1], PageDown: [0, 1] };

// Make clicks, drags and keys on the frames of a pane choose its query.
export function listenToInput(pane) {
  const { stage } = pane;
  stage.addEventListener("pointerdown", (event) => {
    const at = positionUnder(pane, event);
    if (at && event.button === 0) pane.query(at);
  });
  stage.addEventListener("pointermove", (event) => {
    const at = positionUnder(pane, event);
    showTooltip(pane, at, event);
    if (at && event.buttons === 1 && at.join() !== pane.rowRequests.latest?.join()) pane.query(at);
  });
  stage.addEventListener("pointerleave", () => showTooltip(pane, null));
  stage.addEventListener("keydown", (event) => {
    const at = positionAfterKey(pane, event);
    if (!at) return;
    event.preventDefault();
    pane.query(at);
  });
  const screen = pane.part(".screen");
  screen.addEventListener("pointerdown", (event) => {
    const box = screen.getBoundingClientRect();
    const at = pane.clip && pane.player.figure.positionAt(event.clientX - box.left, event.clientY - box.top);
    // in the player all frames are in one place: the frame is the one that it shows
    if (at && pane.blocks?.length) pane.query([pane.player.now, at[1], at[2]]);
  });
}

// The position of the clip under the pointer, or null.
function positionUnder({ clip, blocks, figure }, event) {
  if (!clip || !blocks?.length) return null;
  const box = figure.svg.getBoundingClientRect();
  return figure.positionAt(event.clientX - box.left, event.clientY - box.top);
}

// The position that a key moves the query to, or null for other keys. Arrow keys go to the next query cell of the
// block, with Shift to the next pixel.
function positionAfterKey(pane, event) {
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
  at[axis] = single ? byOne : nextCell(at[axis], pane.block().queries[axis], direction, size);
  return at;
}

// Show at the pointer the weight of the key under it; hide the tooltip if `at` is null.
function showTooltip(pane, at, event) {
  const { stage, shown, answer } = pane;
  const tip = pane.part(".tip");
  tip.hidden = !at || !shown || !answer;
  if (tip.hidden) return;
  const key = nearestKey(shown.weights, shown.keys, at);
  tip.textContent = `weight ${formatWeight(key.weight)} · key at ${key.at.map(formatCoordinate).join(", ")}`;
  const box = stage.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  tip.style.left = `${Math.min(x + 14, box.width - tip.offsetWidth)}px`;
  tip.style.top = `${y + 18}px`;
}
