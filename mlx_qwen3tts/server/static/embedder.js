// Worker: samples at 24 kHz to the speaker's vector, with the encoder in ONNX. It is told {id, samples, bands} and answers
// {id, vector} or {id, error}; before that {ready} once, or {error}.

import { logMel } from "./mel.js";

const DATA = new URL("../browser/", import.meta.url);

const begin = async () => {
  const ort = await import(new URL("ort.wasm.bundle.min.mjs", DATA).href);
  ort.env.wasm.numThreads = 1; // more would need headers that isolate the page
  ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", DATA).href };
  const session = await ort.InferenceSession.create(new URL("encoder.onnx", DATA).href, { executionProviders: ["wasm"] });
  return async (samples, bands) => {
    const { mel, frames } = logMel(samples, bands);
    const { speaker_embedding } = await session.run({ mel: new ort.Tensor("float32", mel, [1, frames, bands]) });
    return speaker_embedding.data;
  };
};

const words = (error) => String(error?.message ?? error);
const begun = begin();
begun.then(() => self.postMessage({ ready: true }), (error) => self.postMessage({ error: words(error) }));

let last = Promise.resolve(); // one after another
self.onmessage = ({ data: { id, samples, bands } }) => {
  last = last.then(async () => {
    try {
      const vector = await (await begun)(samples, bands);
      self.postMessage({ id, vector });
    } catch (error) {
      self.postMessage({ id, error: words(error) });
    }
  });
};
