// AudioWorklet: plays samples as they come. Sound begins once some are at hand, and again after it ran dry; each time it ran
// dry it waits for more, so that a server that is late now and then is not heard to be.

const FIRST = 0.1; // seconds at hand before the first sound
const MOST = 0.6;

class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.clear(null);
    this.port.onmessage = ({ data }) => {
      if (data.begin !== undefined) this.clear(data.begin);
      else if (data.id !== this.id) return;
      else if (data.samples) this.add(data.samples);
      else if (data.finish) this.finished = true;
    };
  }

  clear(id) {
    Object.assign(this, { id, queue: [], at: 0, held: 0, lead: FIRST, waiting: true, finished: false, gaps: 0 });
  }

  add(samples) {
    this.queue.push(samples);
    this.held += samples.length;
  }

  process(inputs, [[out]]) {
    if (this.id === null) return true;
    if (this.waiting && (this.finished || this.held >= this.lead * sampleRate)) this.waiting = false;
    if (this.waiting) return true;
    let filled = 0;
    while (filled < out.length && this.queue.length) {
      const part = this.queue[0].subarray(this.at, this.at + out.length - filled);
      out.set(part, filled);
      filled += part.length;
      this.at += part.length;
      if (this.at === this.queue[0].length) {
        this.queue.shift();
        this.at = 0;
      }
    }
    this.held -= filled;
    if (filled < out.length && this.finished) {
      this.port.postMessage({ ended: this.id, gaps: this.gaps });
      this.id = null;
    } else if (filled < out.length) {
      this.waiting = true;
      this.gaps += 1;
      this.lead = Math.min(MOST, 2 * this.lead);
    }
    return true;
  }
}

registerProcessor("player", Player);
