// The page: it holds the state, creates the panes, and handles uploads, downloads and links.

import { rescaled } from "./geometry.js";
import { Pane } from "./pane.js";
import { pngOf } from "./png.js";
import { openSource } from "./source.js";
import { hashToState, resolve, stateToHash } from "./state.js";
import { connectToolbar, drawToolbar } from "./toolbar.js";

const source = openSource();
const byName = (id) => document.getElementById(id);
const panes = [];
let state = hashToState(location.hash);
let index;
let turn = 0; // number of the latest call of `render`
let timer = 0; // of the text for screen readers

// The view of a run that the state asks for. Runs may have different numbers of views: the corresponding one is taken.
function viewOf(run) {
  const [first, facts] = [index.runs[state.run], index.runs[run]];
  const middle = (count) => Math.floor(count / 2);
  const clip = state.clip < 0 ? Math.floor((first.clips - 1) / 2) : Math.min(state.clip, first.clips - 1);
  const crop = state.crop < 0 ? middle(first.crops) : Math.min(state.crop, first.crops - 1);
  const same = [rescaled([clip], [first.clips], [facts.clips])[0], first.crops === facts.crops ? crop : middle(facts.crops)];
  return { facts, clip: same[0], crop: same[1], view: same[0] * facts.crops + same[1] };
}

function runNames() {
  return index.runs.map((run) => run.name);
}

// Replace a run or a video of a link that this explorer does not have, and show a message about it.
function replaceMissing() {
  const messages = [];
  const lists = [["video", "video", index.videos], ["run", "run", runNames()], ["with", "second run", runNames()]];
  for (const [what, noun, names] of lists) {
    const name = state[`${what}-name`];
    const { number, here } = resolve(state, what, names);
    state = { ...state, [what]: here || what !== "with" ? number : -1, [`${what}-name`]: "" };
    if (here) continue;
    const instead = what === "with" ? "no run is compared" : name ? `${names[number]} is shown instead` : "the first one is shown instead";
    messages.push(`The ${noun} of this link${name ? `, ${name},` : ""} does not exist here${names.length ? `; ${instead}` : ""}.`);
  }
  if (messages.length) showMessage(messages.join(" "));
}

// Change the state and draw the page.
function set(patch) {
  state = { ...state, ...patch };
  showMessage("");
  return render();
}

// Draw the page. It waits for answers several times; a call stops if a later one has begun meanwhile.
async function render() {
  turn += 1;
  const mine = turn;
  replaceMissing();
  const runs = state.with >= 0 ? [state.run, state.with] : [state.run];
  while (panes.length > runs.length) panes.pop().close();
  while (panes.length < runs.length) {
    panes.push(new Pane(panes.length, source, set, () => panes[0].clip?.size ?? panes.at(-1).clip.size));
    byName("panes").append(panes.at(-1).root);
  }
  byName("panes").classList.toggle("two", runs.length > 1);
  byName("empty").hidden = index.videos.length > 0;
  byName("panes").hidden = !index.videos.length;
  drawControls();
  saveState();
  if (!index.videos.length) return;
  await Promise.all(panes.map((pane, i) => pane.open(state, runs[i], viewOf(runs[i]).facts, viewOf(runs[i]).view)));
  if (mine !== turn) return;
  await requestAttention(mine);
  if (mine !== turn) return;
  for (const pane of panes) pane.draw(state);
  drawControls();
  saveState();
  describe();
  for (const pane of panes) pane.predict();
}

// Request the attention from the state's query in every pane; without a query, from the position that the first pane's
// block changes most.
async function requestAttention(mine) {
  const first = panes.find((pane) => pane.blocks?.length);
  if (!first) return;
  const size = panes[0].clip?.size ?? first.clip.size;
  const at = state.at ?? rescaled(first.block().strongest[0], first.clip.size, size);
  state.at = at.map((value, axis) => Math.min(value, size[axis] - 1));
  await Promise.all(
    panes
      .filter((pane) => pane.clip)
      .map((pane) => pane.ask(rescaled(state.at, size, pane.clip.size))),
  );
  // an exported page has answers for some positions only: the query moves to the position that was answered
  if (mine === turn && first.answer && first === panes[0]) state.at = first.answer.at;
}

function drawControls() {
  const { facts, clip, crop } = index.runs.length ? shownView() : {};
  const signed = panes.some((pane) => pane.block()?.signed);
  drawToolbar({ state, index, facts, clip, crop, signed, exported: !source.live });
}

// The view of the first run that is shown: {facts, clip, crop}. An exported page has one, whatever the state asks for.
function shownView() {
  const chosen = viewOf(state.run);
  if (source.live || !index.videos.length) return chosen;
  const [view] = source.views(state.run, state.video);
  return { ...chosen, clip: Math.floor(view / chosen.facts.crops), crop: view % chosen.facts.crops };
}

// Write the state into the address.
function saveState() {
  const [video, run, second] = [index.videos[state.video], runNames()[state.run], runNames()[state.with]];
  const hash = stateToHash({ ...state, "video-name": video ?? "", "run-name": run ?? "", "with-name": second ?? "" });
  if (hash !== location.hash && !(hash === "#" && location.hash === "")) history.replaceState(null, "", hash);
  document.title = index.videos.length ? `${index.videos[state.video]} · nlnet explore` : "nlnet explore";
}

// Describe the attention for screen readers; delayed, so that only the last position of a drag is read aloud.
function describe() {
  clearTimeout(timer);
  timer = setTimeout(() => {
    byName("spoken").textContent = panes.map((pane) => pane.describe()).join(" ");
  }, 300);
}

function showMessage(words) {
  byName("message").textContent = words;
  byName("message").hidden = !words;
}

// Upload the first of some files. Only one video is shown at a time, so the others would go unnoticed.
async function upload([file, ...others]) {
  const limit = index.upload_limit;
  if (file.size > limit) return showMessage(`${file.name} is larger than the limit of ${limit / 1e6} MB (--upload-limit).`);
  byName("drop").hidden = true;
  showMessage(`Uploading ${file.name}…`);
  try {
    const { video } = await source.upload(file);
    index = await source.index(); // other pages may have added videos too
    await set({ video, at: null });
    if (others.length) showMessage(`Only ${file.name} of ${others.length + 1} files was uploaded: drop one video at a time.`);
  } catch (error) {
    showMessage(`${file.name}: ${error.message}`);
  }
}

// Accept files that are dropped on the page or chosen with its buttons.
function acceptFiles() {
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
    input.value = ""; // so that the same file can be chosen again
  });
}

async function download() {
  const shown = panes.filter((pane) => pane.answer);
  if (!shown.length) return showMessage("There is no picture yet.");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await pngOf(shown.map((pane) => pane.forDownload())));
  link.download = `${index.videos[state.video].replace(/\.\w+$/, "")}-${shown[0].block().path}-${state.at.join("-")}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function copyLink() {
  saveState();
  try {
    await navigator.clipboard.writeText(location.href);
    showMessage("The link to this view is copied.");
  } catch {
    showMessage(`The link to this view: ${location.href}`);
  }
}

// Show the state of a new address; its video may have been added after this page was opened.
async function followLink() {
  showMessage("");
  try {
    index = await source.index();
  } catch (error) {
    return showMessage(error.message);
  }
  await render();
}

async function start() {
  try {
    index = await source.index();
  } catch (error) {
    return showMessage(error.message);
  }
  connectToolbar(set, shownView);
  byName("link").addEventListener("click", copyLink);
  byName("picture").addEventListener("click", download);
  byName("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address holds the state, not the target of this link
    document.querySelector(".stage")?.focus();
  });
  addEventListener("hashchange", () => {
    state = hashToState(location.hash);
    followLink();
  });
  byName("add").hidden = !source.live;
  byName("origin").textContent = source.live
    ? "Served by nlnet explore on this machine; nothing is sent elsewhere."
    : "Exported by nlnet explore: one view of each video, a grid of positions in every frame, weights rounded to 1/510 of the largest (1/254 if they have signs).";
  if (source.live) acceptFiles();
  await render();
}

start();
