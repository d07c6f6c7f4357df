// The player: the clip playing at the speed of its video.

import { Figure, frameTime } from "./figure.js";

export class Player {
  // `stopped(frame)` is called when a person stops the player or moves its slider.
  constructor(root, stopped) {
    this.figure = new Figure(root.querySelector("svg"), { stacked: true });
    [this.button, this.slider, this.time] = ["button", "input", "output"].map((name) => root.querySelector(name));
    this.stopped = stopped;
    this.playing = 0; // the number of the timer, 0 while the player stands still
    this.button.addEventListener("click", () => (this.playing ? this.stop() : this.play()));
    this.slider.addEventListener("input", () => {
      this.halt();
      this.show(Number(this.slider.value));
      this.stopped(this.now);
    });
  }

  // Lay a clip out in a width of `room` pixels. The same clip goes on playing; another clip stops the player.
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
    const words = `frame ${this.now}, ${frameTime(this.clip, this.now)}`;
    this.slider.setAttribute("aria-valuetext", words);
    this.time.textContent = `${this.now + 1} / ${this.clip.frames.length}`;
    this.figure.svg.setAttribute("aria-label", `The clip, ${words}`);
  }

  play() {
    this.button.textContent = "Pause";
    const next = () => {
      this.show((this.now + 1) % this.clip.frames.length);
      this.playing = setTimeout(next, this.duration());
    };
    this.playing = setTimeout(next, this.duration());
  }

  // How long the present frame is shown, in milliseconds; 250 if its duration is unknown. A clip longer than its video
  // starts over, so the gap to the next frame may be negative.
  duration() {
    const seconds = this.clip.seconds ?? [];
    const gap = seconds[this.now + 1] - seconds[this.now];
    return 1000 * Math.min(Math.max(gap > 0 ? gap : 0.25, 0.03), 2);
  }

  stop() {
    this.halt();
    this.stopped(this.now);
  }

  // Stop without calling `stopped`.
  halt() {
    clearTimeout(this.playing);
    this.playing = 0;
    this.button.textContent = "Play";
  }
}
