// Steers what is spoken now: its voice follows the expression, and what was done is kept, so that it can be done again.

import { steer } from "./server.js";
import { set } from "./store.js";

const GLIDE = 0.3; // seconds
const PAUSE = 100; // ms between two turns
const MOST = 100; // of one speech

let speech = null; // {id, turns} of what the server is making
let wanted = null;
let last = null; // what it was told last
let busy = false;

// A speech has begun under an id with a voice; `turns` grows by {frame, voice, seconds} from now on.
export const begun = (id, turns, voice) => {
  speech = { id, turns };
  wanted = null;
  last = turns.at(-1)?.voice ?? voice;
  set({ fixed: null });
};

export const over = () => {
  speech = null;
};

const send = async () => {
  busy = true;
  while (speech && wanted !== null && speech.turns.length < MOST) {
    const { id, turns } = speech;
    const voice = wanted;
    wanted = null;
    try {
      const { frame } = await steer(id, { voice, seconds: GLIDE });
      while (turns.length && turns.at(-1).frame >= frame) turns.pop(); // the server forgets them too
      turns.push({ frame, voice, seconds: GLIDE });
      set({ heard: voice });
    } catch (error) {
      if (speech?.id === id) over(); // it has just ended, or its voice cannot move
      if (error.body?.error?.code === "unsupported_value") set({ fixed: error.message });
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
  busy = false;
};

// The voice is to be this expression from now on.
export const follow = (expression) => {
  if (!speech || expression === last) return;
  wanted = last = expression;
  if (!busy) send();
};
