// A voice of the library, heard: it says the text with one seed, so that voices differ in nothing else.

import { quoted } from "./expression.js";
import { spoken } from "./server.js";
import { joined, play } from "./sound.js";
import { halt, set, state, told } from "./store.js";
import { t } from "./words.js";

const MOST = 40; // voices that are remembered
const SEED = 1;
const known = new Map(); // samples by voice and text

export const audition = async ({ name, consent }) => {
  if (consent === "refused") return set({ status: `${name}: ${t("known-refused")}` });
  halt();
  const playing = `voice ${name}`;
  const cancel = new AbortController();
  set({ playing, status: name });
  try {
    const sound = await play(() => {
      cancel.abort();
      if (state.playing === playing) set({ playing: null, status: "" });
    });
    const input = state.text.trim() || t("firstText");
    const key = JSON.stringify([name, input]);
    if (known.has(key)) sound.add(known.get(key).slice());
    else {
      const parts = [];
      for await (const samples of spoken({ input, voice: quoted(name), seed: SEED }, cancel.signal, () => {})) {
        parts.push(samples);
        sound.add(samples.slice());
      }
      known.set(key, joined(parts));
      if (known.size > MOST) known.delete(known.keys().next().value);
    }
    sound.finish();
  } catch (error) {
    if (error.name !== "AbortError") {
      halt();
      told(error);
    }
  }
};
