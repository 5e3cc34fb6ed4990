// AudioWorklet: hands on the samples that come in, in parts.

const PART = 2400;

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.clear();
  }

  clear() {
    this.part = new Float32Array(PART);
    this.filled = 0;
  }

  process([[samples]]) {
    for (const x of samples ?? []) {
      this.part[this.filled++] = x;
      if (this.filled === PART) {
        this.port.postMessage(this.part);
        this.clear();
      }
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
