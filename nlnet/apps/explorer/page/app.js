// The page: its state, the panes that show it, and what happens to it.

import { pngOf } from "./figure.js";
import { Pane } from "./pane.js";
import { fitted } from "./scene.js";
import { openSource } from "./source.js";
import { found, read, written } from "./state.js";
import { connect, drawToolbar } from "./toolbar.js";

const source = openSource();
const byName = (id) => document.getElementById(id);
const panes = [];
let state = read(location.hash);
let index;
let turn = 0;
let speaking = 0;

// Which view of a run the state means: runs that take other numbers of views show the nearest one.
function viewOf(run) {
  const [first, facts] = [index.runs[state.run], index.runs[run]];
  const middle = (count) => Math.floor(count / 2);
  const clip = state.clip < 0 ? Math.floor((first.clips - 1) / 2) : Math.min(state.clip, first.clips - 1);
  const crop = state.crop < 0 ? middle(first.crops) : Math.min(state.crop, first.crops - 1);
  const same = [fitted([clip], [first.clips], [facts.clips])[0], first.crops === facts.crops ? crop : middle(facts.crops)];
  return { facts, clip: same[0], crop: same[1], view: same[0] * facts.crops + same[1] };
}

function runNames() {
  return index.runs.map((run) => run.name);
}

// What a link may not mean: a run or a video that is not here. It is told, and another one shown.
function corrected() {
  const told = [];
  const lists = [["video", "video", index.videos], ["run", "run", runNames()], ["with", "second run", runNames()]];
  for (const [what, noun, names] of lists) {
    const name = state[`${what}-name`];
    const { number, here } = found(state, what, names);
    state = { ...state, [what]: here || what !== "with" ? number : -1, [`${what}-name`]: "" };
    if (here) continue;
    const instead = what === "with" ? "nothing is compared" : name ? `this is ${names[number]}` : "this is the first one";
    told.push(`The ${noun} of this link${name ? `, ${name},` : ""} is not here${names.length ? `; ${instead}` : ""}.`);
  }
  if (told.length) say(told.join(" "));
}

function set(patch) {
  state = { ...state, ...patch };
  say("");
  return render();
}

async function render() {
  turn += 1;
  const mine = turn;
  corrected();
  const runs = state.with >= 0 ? [state.run, state.with] : [state.run];
  while (panes.length > runs.length) panes.pop().close();
  while (panes.length < runs.length) {
    panes.push(new Pane(panes.length, source, set, () => panes[0].clip?.size ?? panes.at(-1).clip.size));
    byName("panes").append(panes.at(-1).root);
  }
  byName("panes").classList.toggle("two", runs.length > 1);
  byName("empty").hidden = index.videos.length > 0;
  byName("panes").hidden = !index.videos.length;
  controls();
  keep();
  if (!index.videos.length) return;
  await Promise.all(panes.map((pane, i) => pane.open(state, runs[i], viewOf(runs[i]).facts, viewOf(runs[i]).view)));
  if (mine !== turn) return;
  await query(mine);
  if (mine !== turn) return;
  for (const pane of panes) pane.draw(state);
  controls();
  keep();
  speak();
  for (const pane of panes) pane.predict();
}

// Ask every pane for the state's query; without one, for what the first pane's block changed most.
async function query(mine) {
  const first = panes.find((pane) => pane.blocks?.length);
  if (!first) return;
  const size = panes[0].clip?.size ?? first.clip.size;
  const at = state.at ?? fitted(first.block().strongest[0], first.clip.size, size);
  state.at = at.map((value, axis) => Math.min(value, size[axis] - 1));
  await Promise.all(
    panes
      .filter((pane) => pane.clip)
      .map((pane) => pane.ask(fitted(state.at, size, pane.clip.size))),
  );
  // a page in a file knows some positions only: the query moves to the one that was answered
  if (mine === turn && first.answer && first === panes[0]) state.at = first.answer.at;
}

function controls() {
  const { facts, clip, crop } = index.runs.length ? now() : {};
  const signed = panes.some((pane) => pane.block()?.signed);
  drawToolbar({ state, index, facts, clip, crop, signed, only: !source.live });
}

function now() {
  const chosen = viewOf(state.run);
  if (source.live || !index.videos.length) return chosen;
  const [view] = source.views(state.run, state.video);
  return { ...chosen, clip: Math.floor(view / chosen.facts.crops), crop: view % chosen.facts.crops };
}

function keep() {
  const [video, run, second] = [index.videos[state.video], runNames()[state.run], runNames()[state.with]];
  const hash = written({ ...state, "video-name": video ?? "", "run-name": run ?? "", "with-name": second ?? "" });
  if (hash !== location.hash && !(hash === "#" && location.hash === "")) history.replaceState(null, "", hash);
  document.title = index.videos.length ? `${index.videos[state.video]} · nlnet explore` : "nlnet explore";
}

function speak() {
  clearTimeout(speaking);
  speaking = setTimeout(() => {
    byName("spoken").textContent = panes.map((pane) => pane.spoken()).join(" ");
  }, 300);
}

function say(words) {
  byName("message").textContent = words;
  byName("message").hidden = !words;
}

// Take the first of some files up. Only one at a time is shown, so the others would go by unnoticed.
async function upload([file, ...others]) {
  const limit = index.upload_limit;
  if (file.size > limit) return say(`${file.name} is larger than the limit of ${limit / 1e6} MB (--upload-limit).`);
  byName("drop").hidden = true;
  say(`Taking ${file.name} up…`);
  try {
    const { video } = await source.upload(file);
    index = await source.index(); // other pages may have added videos too
    await set({ video, at: null });
    if (others.length) say(`Of ${others.length + 1} files ${file.name} is taken up alone: drop one video at a time.`);
  } catch (error) {
    say(`${file.name}: ${error.message}`);
  }
}

function takeFiles() {
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    byName("drop").hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) byName("drop").hidden = true;
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    byName("drop").hidden = true;
    if (event.dataTransfer.files.length) upload(event.dataTransfer.files);
  });
  const input = byName("file");
  for (const id of ["add", "choose"]) byName(id).addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    if (input.files.length) upload([...input.files]);
    input.value = "";
  });
}

async function download() {
  const shown = panes.filter((pane) => pane.answer);
  if (!shown.length) return say("There is no picture yet.");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await pngOf(shown.map((pane) => pane.sheet())));
  link.download = `${index.videos[state.video].replace(/\.\w+$/, "")}-${shown[0].block().path}-${state.at.join("-")}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function copyLink() {
  keep();
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link to this view is copied.");
  } catch {
    say(`The link to this view: ${location.href}`);
  }
}

// Show what an address says, which may be a video that came after this page was opened.
async function follow() {
  say("");
  try {
    index = await source.index();
  } catch (error) {
    return say(error.message);
  }
  await render();
}

async function start() {
  try {
    index = await source.index();
  } catch (error) {
    return say(error.message);
  }
  connect(set, now);
  byName("link").addEventListener("click", copyLink);
  byName("picture").addEventListener("click", download);
  byName("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address holds the state
    document.querySelector(".stage")?.focus();
  });
  addEventListener("hashchange", () => {
    state = read(location.hash);
    follow();
  });
  byName("add").hidden = !source.live;
  byName("origin").textContent = source.live
    ? "Served by nlnet explore on this machine; nothing is sent elsewhere."
    : "Written by nlnet explore: one view of each video, a grid of positions in every frame, weights to 1/510 of the largest (1/254 where they have signs).";
  if (source.live) takeFiles();
  await render();
}

start();
