// The state of the page, all of it in the address behind the #, so that a link shows what its sender saw.

export const INITIAL = {
  video: 0,
  clip: -1, // -1: the middle one
  crop: -1, // -1: the centre
  run: 0,
  with: -1, // -1: no second run
  block: "", // "": the last one of the network
  block2: "",
  at: null, // [t, y, x] in the first run's clip; null: what the block changed most
  sign: "positive",
  top: 20,
  heat: true,
  arrows: true,
  frame: -1, // of the player; -1: the query's
  theme: "auto",
  // what the sender saw under the numbers above: another server may count otherwise
  "video-name": "",
  "run-name": "",
  "with-name": "",
};

const CHOICES = { sign: ["positive", "negative"], theme: ["auto", "light", "dark"] };

export function written(state) {
  const parts = new URLSearchParams();
  for (const [name, initial] of Object.entries(INITIAL)) {
    const value = state[name];
    if (String(value) === String(initial) || value === null) continue;
    parts.set(name, Array.isArray(value) ? value.join(",") : typeof value === "boolean" ? Number(value) : value);
  }
  return `#${parts.toString().replaceAll("%2C", ",")}`;
}

// Which of `names` a link means by the number and the name that it gives: the name decides. {number, here}, where
// `here` says whether that is what its sender saw; otherwise the number is of one that is there.
export function found(state, what, names) {
  const [number, name] = [state[what], state[`${what}-name`]];
  if (number < 0 || (number < names.length && (!name || name === names[number]))) return { number, here: true };
  if (names.includes(name)) return { number: names.indexOf(name), here: true };
  return { number: number < names.length ? number : 0, here: !names.length && !name };
}

// The state of a link; what it does not say, or says wrongly, is as initially.
export function read(hash) {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  const state = { ...INITIAL };
  for (const [name, initial] of Object.entries(INITIAL)) {
    const text = parts.get(name);
    if (text === null) continue;
    if (name === "at") {
      const numbers = text.split(",").map(Number);
      if (numbers.length === 3 && numbers.every((n) => Number.isInteger(n) && n >= 0)) state.at = numbers;
    } else if (name in CHOICES) {
      if (CHOICES[name].includes(text)) state[name] = text;
    } else if (typeof initial === "boolean") {
      state[name] = text === "1";
    } else if (typeof initial === "number") {
      if (/^\d{1,6}$/.test(text)) state[name] = Number(text);
    } else {
      state[name] = text;
    }
  }
  state.top = Math.min(Math.max(state.top, 1), 100);
  return state;
}
