// The page's side of the encoder: recordings to samples, samples to vectors. Neither leaves the page.

import { RATE } from "./sound.js";

export const SHORTEST = 0.5; // seconds
export const LONGEST = 60;
const SILENT = 1e-3; // half of what lies between the lowest and the highest sample

let worker = null;
let count = 0;
const waiting = new Map(); // by number: {resolve, reject}

// Loads the encoder; settles once it is ready.
export const load = () =>
  new Promise((resolve, reject) => {
    worker = new Worker(new URL("embedder.js", import.meta.url), { type: "module" });
    worker.onerror = (event) => reject(new Error(event.message || "embedder.js"));
    worker.onmessage = ({ data }) => {
      if (data.ready) return resolve();
      if (data.id === undefined) return reject(new Error(data.error));
      const asked = waiting.get(data.id);
      waiting.delete(data.id);
      if (data.error) asked.reject(new Error(data.error));
      else asked.resolve(data.vector);
    };
  });

// The vector of samples at 24 kHz; bands: of the encoder's spectrogram.
export const embed = (samples, bands) =>
  new Promise((resolve, reject) => {
    waiting.set((count += 1), { resolve, reject });
    worker.postMessage({ id: count, samples, bands });
  });

// The key of what forbids to make a vector of samples, or null.
export const refusal = (samples) => {
  const seconds = samples.length / RATE;
  if (seconds < SHORTEST || seconds > LONGEST) return "browserLength";
  const [low, high] = samples.reduce(([least, most], x) => [Math.min(least, x), Math.max(most, x)], [Infinity, -Infinity]);
  return (high - low) / 2 < SILENT ? "browserSilent" : null;
};
