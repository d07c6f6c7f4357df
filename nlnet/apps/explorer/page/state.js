// The state of the page. All of it is in the address after the #, so that a link shows what its sender saw.

export const INITIAL = {
  video: 0,
  clip: -1, // -1: the middle clip
  crop: -1, // -1: the centre crop
  run: 0,
  with: -1, // the second run; -1: none
  block: "", // path; "": the last block of the network
  block2: "", // of the second run
  at: null, // query [t, y, x] in the clip of the first run; null: the position that the block changes most
  sign: "positive",
  top: 20,
  heat: true,
  arrows: true,
  frame: -1, // frame of the player; -1: the frame of the query
  theme: "auto",
  // the names that belonged to the numbers above: another server may number its videos and runs differently
  "video-name": "",
  "run-name": "",
  "with-name": "",
};

const CHOICES = { sign: ["positive", "negative"], theme: ["auto", "light", "dark"] };

// The address of a state: everything that differs from `INITIAL`.
export function stateToHash(state) {
  const parts = new URLSearchParams();
  for (const [name, initial] of Object.entries(INITIAL)) {
    const value = state[name];
    if (String(value) === String(initial) || value === null) continue;
    parts.set(name, Array.isArray(value) ? value.join(",") : typeof value === "boolean" ? Number(value) : value);
  }
  return `#${parts.toString().replaceAll("%2C", ",")}`;
}

// Find what a link means by a number and a name in the list `names`; if they disagree the name decides. Returns
// {number, here}: `here` is false if the sender's video or run is not in the list, and `number` is then a replacement.
export function resolve(state, what, names) {
  const [number, name] = [state[what], state[`${what}-name`]];
  if (number < 0 || (number < names.length && (!name || name === names[number]))) return { number, here: true };
  if (names.includes(name)) return { number: names.indexOf(name), here: true };
  return { number: number < names.length ? number : 0, here: !names.length && !name };
}

// The state of an address; missing and invalid parts are as in `INITIAL`.
export function hashToState(hash) {
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
