// Two sounds that run side by side, of which one is heard: changing between them keeps the place.

import { RATE, borrow } from "./sound.js";

const FADE = 0.01; // seconds from one to the other
let running = null; // {context, began, length, gains, sources}
let wanted = 0; // which one is to be heard, also while they are about to begin

const end = () => {
  running?.sources.forEach((source) => source.stop());
  running = null;
};

// Begins [samples, gain] of each, over and over, with the one numbered `first` heard. done() is called when they are stopped.
export const begin = async (sounds, first, done) => {
  wanted = first;
  const out = await borrow(() => (end(), done()));
  if (!out) return;
  const { context } = out;
  const length = Math.max(...sounds.map(([samples]) => samples.length));
  const began = context.currentTime + 0.05;
  const gains = [];
  const sources = sounds.map(([samples, gain], i) => {
    const buffer = context.createBuffer(1, length, RATE); // of one length, so that they stay side by side
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(context, { buffer, loop: true });
    const share = new GainNode(context, { gain: i === wanted ? gain : 0 });
    source.connect(share).connect(out);
    source.start(began);
    gains.push(share.gain);
    return source;
  });
  running = { context, began, length, gains, sources, levels: sounds.map(([, gain]) => gain) };
};

// Lets the other one be heard.
export const turn = (to) => {
  wanted = to;
  if (!running) return;
  const now = running.context.currentTime;
  running.gains.forEach((gain, i) => {
    gain.cancelScheduledValues(now);
    gain.setValueAtTime(gain.value, now);
    gain.linearRampToValueAtTime(i === to ? running.levels[i] : 0, now + FADE);
  });
};
