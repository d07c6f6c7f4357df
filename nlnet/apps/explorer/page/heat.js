// All weights of a row as pictures: one colour a sign, the weight in its strength.

import { extent, part, peak } from "./scene.js";

const RGB = { positive: [255, 122, 26], negative: [47, 123, 255] };

// A heat map of each frame of keys, as {url, x, y, width, height} in pixels of the clip. Opacity grows with the
// square root of weight / peak, so that weak answers are seen too.
export function heatMaps(weights, keys, sign, [, height, width]) {
  const [frames, rows, columns] = keys.map((axis) => axis.length);
  const most = peak(weights, sign) || 1;
  const [across, down] = [extent(keys[2], width), extent(keys[1], height)];
  return Array.from({ length: frames }, (_, t) => {
    const levels = weights.subarray(t * rows * columns, (t + 1) * rows * columns);
    const url = pixels(columns, rows, (i) => part(levels[i], sign) / most, RGB[sign], 0.8);
    return { url, x: across.start, y: down.start, width: across.length, height: down.length };
  });
}

// A picture of columns × rows pixels in one colour, its level (0 to 1) given for each.
function pixels(columns, rows, level, [red, green, blue], strength) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, rows];
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let i = 0; i < columns * rows; i += 1) {
    image.data.set([red, green, blue, Math.round(255 * strength * Math.sqrt(level(i)))], 4 * i);
  }
  context.putImageData(image, 0, 0);
  return canvas.toDataURL();
}

// All frames of keys side by side on a dark ground: a thumbnail of where a block looks.
export function thumbnail(weights, keys, sign) {
  const [frames, rows, columns] = keys.map((axis) => axis.length);
  const most = peak(weights, sign) || 1;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [frames * (columns + 1) - 1, rows];
  const context = canvas.getContext("2d");
  for (let t = 0; t < frames; t += 1) {
    const image = context.createImageData(columns, rows);
    for (let i = 0; i < rows * columns; i += 1) {
      const level = Math.sqrt(part(weights[t * rows * columns + i], sign) / most);
      const colour = RGB[sign].map((value, c) => Math.round(30 + (value - 30) * level + (c === 2 ? 6 : 0)));
      image.data.set([...colour, 255], 4 * i);
    }
    context.putImageData(image, t * (columns + 1), 0);
  }
  return canvas.toDataURL();
}
