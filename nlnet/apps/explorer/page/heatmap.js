// Heat maps: the weights of all keys as pictures, one colour for each sign, stronger for larger weights.

import { gridExtent, largestMagnitude, magnitude } from "./geometry.js";

const HEAT_RGB = { positive: [255, 122, 26], negative: [47, 123, 255] };

// A heat map for each frame of keys: {url, x, y, width, height} in pixels of the clip. The opacity grows with the
// square root of weight / largest weight, so that small weights are visible too.
export function heatMaps(weights, keys, sign, [, height, width]) {
  const [frames, rows, columns] = keys.map((axis) => axis.length);
  const most = largestMagnitude(weights, sign) || 1;
  const [across, down] = [gridExtent(keys[2], width), gridExtent(keys[1], height)];
  return Array.from({ length: frames }, (_, t) => {
    const levels = weights.subarray(t * rows * columns, (t + 1) * rows * columns);
    const url = pixels(columns, rows, (i) => magnitude(levels[i], sign) / most, HEAT_RGB[sign], 0.8);
    return { url, x: across.start, y: down.start, width: across.length, height: down.length };
  });
}

// A picture of columns × rows pixels in one colour; `level(i)` from 0 to 1 sets the opacity of pixel i.
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

// A thumbnail of a block's weights: all frames of keys side by side on a dark background.
export function thumbnail(weights, keys, sign) {
  const [frames, rows, columns] = keys.map((axis) => axis.length);
  const most = largestMagnitude(weights, sign) || 1;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [frames * (columns + 1) - 1, rows];
  const context = canvas.getContext("2d");
  for (let t = 0; t < frames; t += 1) {
    const image = context.createImageData(columns, rows);
    for (let i = 0; i < rows * columns; i += 1) {
      const level = Math.sqrt(magnitude(weights[t * rows * columns + i], sign) / most);
      const colour = HEAT_RGB[sign].map((value, c) => Math.round(30 + (value - 30) * level + (c === 2 ? 6 : 0)));
      image.data.set([...colour, 255], 4 * i);
    }
    context.putImageData(image, t * (columns + 1), 0);
  }
  return canvas.toDataURL();
}
