// The clip playing at the video's own pace.

import { Figure, momentOf } from "./figure.js";

export class Player {
  // `moved(frame)` when a person moves it or stops it there.
  constructor(root, moved) {
    this.figure = new Figure(root.querySelector("svg"), { stacked: true });
    [this.button, this.slider, this.time] = ["button", "input", "output"].map((name) => root.querySelector(name));
    this.moved = moved;
    this.playing = 0;
    this.button.addEventListener("click", () => (this.playing ? this.stop() : this.play()));
    this.slider.addEventListener("input", () => {
      this.halt();
      this.show(Number(this.slider.value));
      this.moved(this.now);
    });
  }

  // The same clip in another width plays on; another clip stands still.
  setClip(clip, room) {
    if (clip !== this.clip) this.halt();
    this.clip = clip;
    this.figure.setClip(clip, room);
    this.slider.max = clip.frames.length - 1;
  }

  show(frame) {
    this.now = Math.min(frame, this.clip.frames.length - 1);
    this.figure.show(this.now);
    this.slider.value = this.now;
    const words = `frame ${this.now}, ${momentOf(this.clip, this.now)}`;
    this.slider.setAttribute("aria-valuetext", words);
    this.time.textContent = `${this.now + 1} / ${this.clip.frames.length}`;
    this.figure.svg.setAttribute("aria-label", `The clip, ${words}`);
  }

  play() {
    this.button.textContent = "Pause";
    const next = () => {
      this.show((this.now + 1) % this.clip.frames.length);
      this.playing = setTimeout(next, this.pause());
    };
    this.playing = setTimeout(next, this.pause());
  }

  // How long the present frame stays, milliseconds. A clip may go on from the video's end at its beginning.
  pause() {
    const seconds = this.clip.seconds ?? [];
    const gap = seconds[this.now + 1] - seconds[this.now];
    return 1000 * Math.min(Math.max(gap > 0 ? gap : 0.25, 0.03), 2);
  }

  stop() {
    this.halt();
    this.moved(this.now);
  }

  // Stand still and tell nobody.
  halt() {
    clearTimeout(this.playing);
    this.playing = 0;
    this.button.textContent = "Play";
  }
}
