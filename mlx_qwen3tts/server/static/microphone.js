// A recording from the microphone as it is: no gain control, no echo cancelling, no noise suppression. And what is wrong
// with one, from here or from a file.

import { samplesOf } from "./decode.js";
import { resampled } from "./resample.js";
import { RATE, joined } from "./sound.js";
import { t } from "./words.js";

export const LEAST = 3; // seconds
export const MOST = 60;
const CLIPPED = 0.99; // full scale 1
const OFTEN = 0.0005; // share of the samples
const SILENT = 0.005; // RMS
const PATIENCE = 2; // seconds of silence before it is said

// What has come in so far: its length, the peak of the last part, how much of it clips, and for how long it has been silent.
export class Gauge {
  constructor(rate = RATE) {
    Object.assign(this, { rate, count: 0, level: 0, over: 0, quiet: 0 });
  }

  add(samples) {
    let [peak, power] = [0, 0];
    for (const x of samples) {
      const size = Math.abs(x);
      if (size > peak) peak = size;
      if (size >= CLIPPED) this.over += 1;
      power += x * x;
    }
    this.count += samples.length;
    this.level = peak;
    this.quiet = Math.sqrt(power / samples.length) < SILENT ? this.quiet + samples.length / this.rate : 0;
    return this;
  }

  get seconds() {
    return this.count / this.rate;
  }

  get clipped() {
    return this.over / Math.max(1, this.count);
  }

  // Keys of what is to be said meanwhile.
  get warnings() {
    const found = [];
    if (this.quiet >= PATIENCE) found.push("silent");
    if (this.clipped > OFTEN) found.push("clipped");
    return found;
  }
}

const REFUSED = { NotAllowedError: "micDenied", NotFoundError: "micMissing" };
const opened = async (what) => {
  if (!navigator.mediaDevices) throw new Error(t("micInsecure"));
  try {
    return await navigator.mediaDevices.getUserMedia(what);
  } catch (error) {
    throw REFUSED[error.name] ? new Error(t(REFUSED[error.name])) : error;
  }
};

// Begins to record. heard(gauge) is called meanwhile; the function that is given ends it and gives the samples.
export const record = async (heard) => {
  const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await opened({ audio });
  const context = new AudioContext(); // at the microphone's rate: what browsers resample by themselves is not what we would
  const rate = context.sampleRate;
  await context.audioWorklet.addModule(new URL("recorder.js", import.meta.url));
  const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  const [parts, gauge] = [[], new Gauge(rate)];
  node.port.onmessage = ({ data }) => {
    parts.push(data);
    heard(gauge.add(data));
  };
  context.createMediaStreamSource(stream).connect(node);
  return async () => {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
    return resampled(joined(parts).subarray(0, MOST * rate), rate, RATE);
  };
};

// The samples of a file, or null where this browser cannot read it; the server may be able to.
export const decoded = async (file) => {
  try {
    return await samplesOf(file);
  } catch {
    return null;
  }
};

// What is wrong with a recording: {key, forbids: whether it cannot be kept, x: a number to be told}.
export const faults = (samples) => {
  const found = [];
  const gauge = new Gauge().add(samples);
  const loud = Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / Math.max(1, samples.length));
  if (gauge.seconds < LEAST) found.push({ key: "tooShort", forbids: true, x: LEAST });
  if (gauge.seconds > MOST) found.push({ key: "mic-tooLong", forbids: true, x: MOST });
  if (!(loud >= SILENT)) found.push({ key: "silent", forbids: gauge.level === 0 });
  if (gauge.clipped > OFTEN) found.push({ key: "mic-clips", x: (100 * gauge.clipped).toFixed(gauge.clipped < 0.01 ? 2 : 0) });
  return found;
};
