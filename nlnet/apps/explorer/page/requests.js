// One request at a time: while one is under way only the latest of the later ones waits, and those between are dropped.

export class LatestRequest {
  // `send(request)` promises a response. `received(response, request, last)` gets it; `last` if no later request waits.
  // `failed(error)` is called if the latest request fails; it may then be made again.
  constructor(send, received, failed) {
    Object.assign(this, { send, received, failed });
    this.forget();
  }

  // Ignore the response of the request that is under way.
  forget() {
    this.latest = this.running = null;
    this.round = {}; // a new object: the loop of an older round sees that it is out of date
  }

  // Make a request. The promise is fulfilled when the latest request has its response or has failed. A request that
  // equals the latest one is not sent again.
  ask(request) {
    if (this.latest?.join() !== request.join()) {
      this.latest = request;
      this.running ??= this.run(this.round);
    }
    return this.running;
  }

  async run(round) {
    for (;;) {
      const request = this.latest;
      let response;
      let error = null;
      try {
        response = await this.send(request);
      } catch (thrown) {
        error = thrown;
      }
      if (round !== this.round) return;
      const last = request === this.latest;
      if (last) this.running = null;
      if (!error) this.received(response, request, last);
      else if (last) {
        this.latest = null;
        this.failed(error);
      }
      if (last) return;
    }
  }
}
