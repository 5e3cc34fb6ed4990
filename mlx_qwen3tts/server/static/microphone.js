// A recording from the microphone as it is: no gain control, no echo cancelling, no noise suppression.

import { RATE, joined } from "./sound.js";

export const LEAST = 3; // seconds
export const MOST = 60;
const CLIPPED = 0.99; // full scale 1
const OFTEN = 0.0005; // share of the samples
const SILENT = 0.005; // RMS

// Begins to record. heard(seconds, level) is called meanwhile; the function that is given ends it and gives the samples.
export const record = async (heard) => {
  const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  const context = new AudioContext({ sampleRate: RATE });
  await context.audioWorklet.addModule(new URL("recorder.js", import.meta.url));
  const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  const parts = [];
  node.port.onmessage = ({ data }) => {
    parts.push(data);
    heard((parts.length * data.length) / RATE, data.reduce((most, x) => Math.max(most, Math.abs(x)), 0));
  };
  context.createMediaStreamSource(stream).connect(node);
  return async () => {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
    return joined(parts).subarray(0, MOST * RATE);
  };
};

// Keys of what is wrong with a recording; the first alone, if any, forbids to keep it.
export const faults = (samples) => {
  const found = [];
  if (samples.length < LEAST * RATE) found.push("tooShort");
  const loud = samples.reduce((sum, x) => sum + x * x, 0) / Math.max(1, samples.length);
  if (Math.sqrt(loud) < SILENT) found.push("silent");
  if (samples.filter((x) => Math.abs(x) >= CLIPPED).length > OFTEN * samples.length) found.push("clipped");
  return found;
};
