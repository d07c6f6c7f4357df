// What is to be drawn, as numbers: which keys answer a query, and where they lie in the clip. No page, no pictures.

// The index of the centre nearest to a value; the earlier of two. Centres ascend.
export function nearest(value, centres) {
  let best = 0;
  for (let i = 1; i < centres.length; i += 1) {
    if (Math.abs(centres[i] - value) < Math.abs(centres[best] - value)) best = i;
  }
  return best;
}

// The part of a weight that has the chosen sign, as a number of 0 or more.
export function part(weight, sign) {
  return sign === "negative" ? Math.max(-weight, 0) : Math.max(weight, 0);
}

export function total(weights, sign) {
  let sum = 0;
  for (const weight of weights) sum += part(weight, sign);
  return sum;
}

// The keys with the largest weights of a sign: {weight, at: [t, y, x] in the clip}, the largest first.
export function strongest(weights, keys, sign, count) {
  const order = Array.from(weights.keys()).filter((i) => part(weights[i], sign) > 0);
  order.sort((a, b) => part(weights[b], sign) - part(weights[a], sign) || a - b);
  const [, rows, columns] = keys.map((axis) => axis.length);
  return order.slice(0, count).map((i) => ({
    weight: weights[i],
    at: [keys[0][Math.floor(i / (rows * columns))], keys[1][Math.floor(i / columns) % rows], keys[2][i % columns]],
  }));
}

// The weight of the key nearest to a position of the clip, and that key's centre.
export function keyAt(weights, keys, at) {
  const [t, y, x] = at.map((value, axis) => nearest(value, keys[axis]));
  return {
    weight: weights[(t * keys[1].length + y) * keys[2].length + x],
    at: [keys[0][t], keys[1][y], keys[2][x]],
  };
}

// The largest part of a sign among all weights: what the heat maps and the arrows are drawn relative to.
export function peak(weights, sign) {
  let most = 0;
  for (const weight of weights) most = Math.max(most, part(weight, sign));
  return most;
}

// Where a row of evenly spaced cells begins and how far it reaches, in pixels of the frame counted from its edge.
// The centre c of a pixel lies at c + 1/2.
export function extent(centres, size) {
  const step = centres.length > 1 ? centres[1] - centres[0] : size;
  return { start: centres[0] + 0.5 - step / 2, length: step * centres.length };
}

// A position of one clip as that of another of other size: the same fraction of it.
export function fitted(at, from, to) {
  return at.map((value, axis) => (from[axis] === to[axis] ? value : Math.floor(((value + 0.5) * to[axis]) / from[axis])));
}

// The next cell centre of a block's queries beyond a value, rounded to the pixel that the cell answers for.
export function stepped(value, centres, direction, size) {
  const now = nearest(value, centres);
  const next = Math.min(Math.max(now + direction, 0), centres.length - 1);
  return Math.min(Math.max(Math.floor(centres[next] + 0.5), 0), size - 1);
}

export function percent(value) {
  return `${(100 * value).toFixed(1)} %`;
}

// A weight for reading: three significant digits, with a real minus sign.
export function shownWeight(weight) {
  const size = Math.abs(weight);
  const text = size === 0 ? "0" : size < 0.001 ? size.toExponential(1) : size.toPrecision(3);
  return weight < 0 ? `−${text}` : text;
}

// The positions of a clip are counted from 0 in the interface, as on the command line; between two, one decimal.
export function shownPlace(value) {
  return Number.isInteger(value) ? String(value) : value.toFixed(1);
}
