// One question at a time: while one is being answered the latest asked since waits, and those in between are dropped.

export class Latest {
  // `answer(question)` promises a value. `got(value, question, last)` takes it: `last` if nothing was asked since.
  // `failed(error)` hears of the last question's failure; it may then be asked again.
  constructor(answer, got, failed) {
    Object.assign(this, { answer, got, failed });
    this.forget();
  }

  // What is being answered concerns nobody any more.
  forget() {
    this.wanted = this.running = null;
    this.round = {};
  }

  // Done when the latest question is answered or has failed; one that is answered already is not asked again.
  ask(question) {
    if (this.wanted?.join() !== question.join()) {
      this.wanted = question;
      this.running ??= this.run(this.round);
    }
    return this.running;
  }

  async run(round) {
    for (;;) {
      const question = this.wanted;
      let value;
      let error = null;
      try {
        value = await this.answer(question);
      } catch (thrown) {
        error = thrown;
      }
      if (round !== this.round) return;
      const last = question === this.wanted;
      if (last) this.running = null;
      if (!error) this.got(value, question, last);
      else if (last) {
        this.wanted = null;
        this.failed(error);
      }
      if (last) return;
    }
  }
}
