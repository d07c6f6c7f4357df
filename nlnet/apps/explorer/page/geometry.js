// Arithmetic without drawing: the strongest keys, the cells and centres nearest to a position, and number formats.

// The index of the centre nearest to a value; the earlier of two that are equally near. Centres ascend.
export function nearest(value, centres) {
  let best = 0;
  for (let i = 1; i < centres.length; i += 1) {
    if (Math.abs(centres[i] - value) < Math.abs(centres[best] - value)) best = i;
  }
  return best;
}

// The magnitude of a weight if it has the chosen sign, else 0.
export function magnitude(weight, sign) {
  return sign === "negative" ? Math.max(-weight, 0) : Math.max(weight, 0);
}

// The sum of the magnitudes of all weights of a sign.
export function total(weights, sign) {
  let sum = 0;
  for (const weight of weights) sum += magnitude(weight, sign);
  return sum;
}

// The `count` keys with the largest weights of a sign, largest first: {weight, at: [t, y, x] in the clip}.
export function strongestKeys(weights, keys, sign, count) {
  const order = Array.from(weights.keys()).filter((i) => magnitude(weights[i], sign) > 0);
  order.sort((a, b) => magnitude(weights[b], sign) - magnitude(weights[a], sign) || a - b);
  const [, rows, columns] = keys.map((axis) => axis.length);
  return order.slice(0, count).map((i) => ({
    weight: weights[i],
    at: [keys[0][Math.floor(i / (rows * columns))], keys[1][Math.floor(i / columns) % rows], keys[2][i % columns]],
  }));
}

// The key nearest to a position of the clip: {weight, at: its centre}.
export function nearestKey(weights, keys, at) {
  const [t, y, x] = at.map((value, axis) => nearest(value, keys[axis]));
  return {
    weight: weights[(t * keys[1].length + y) * keys[2].length + x],
    at: [keys[0][t], keys[1][y], keys[2][x]],
  };
}

// The largest magnitude among the weights of a sign: heat maps and arrows are drawn relative to it.
export function largestMagnitude(weights, sign) {
  let most = 0;
  for (const weight of weights) most = Math.max(most, magnitude(weight, sign));
  return most;
}

// Where a row of evenly spaced cells starts and how long it is, in pixels from the edge of the frame.
// The centre c of a pixel lies at c + 1/2.
export function gridExtent(centres, size) {
  const step = centres.length > 1 ? centres[1] - centres[0] : size;
  return { start: centres[0] + 0.5 - step / 2, length: step * centres.length };
}

// The position in a clip of size `to` that corresponds to the position `at` in a clip of size `from`.
export function rescaled(at, from, to) {
  return at.map((value, axis) => (from[axis] === to[axis] ? value : Math.floor(((value + 0.5) * to[axis]) / from[axis])));
}

// The pixel at the centre of the next query cell in a direction (-1 or 1); of two pixels, the later one, whose nearest
// cell is that cell.
export function nextCell(value, centres, direction, size) {
  const now = nearest(value, centres);
  const next = Math.min(Math.max(now + direction, 0), centres.length - 1);
  return Math.min(Math.max(Math.floor(centres[next] + 0.5), 0), size - 1);
}

export function formatPercent(value) {
  return `${(100 * value).toFixed(1)} %`;
}

// A weight with three significant digits and a typographic minus sign.
export function formatWeight(weight) {
  const size = Math.abs(weight);
  const text = size === 0 ? "0" : size < 0.001 ? size.toExponential(1) : size.toPrecision(3);
  return weight < 0 ? `−${text}` : text;
}

// A coordinate of the clip, counted from 0 as on the command line; one decimal between two pixels.
export function formatCoordinate(value) {
  return Number.isInteger(value) ? String(value) : value.toFixed(1);
}
