// What the page knows, and what can be done with it. Every change goes through `set`.

import * as server from "./server.js";
import * as live from "./live.js";
import * as shelf from "./shelf.js";
import { RATE, joined, play, stop } from "./sound.js";
import { quoted, read } from "./expression.js";
import { t } from "./words.js";

export const state = {
  status: "",
  away: null, // key of what is wrong with the server, while something is
  model: null,
  voices: [], // cards of the server
  directions: [],
  text: "",
  language: "",
  instructions: "",
  expression: "",
  terms: [], // of the expression, as the server read them
  error: null, // why it cannot be read
  heard: null, // the expression as it was spoken last
  fixed: null, // why the voice of what is spoken cannot move
  keepSeed: false,
  seed: "",
  temperature: "",
  speed: "",
  speaking: false,
  playing: null, // id of the take that is heard
  takes: [],
  recording: null, // {seconds, level} while the microphone is open
  recorded: null, // {file, samples or name, faults} to be kept or not
  newName: "",
  shapedName: "", // of the blend that is to be kept
  consent: "",
};

let changed = () => {};
export const watch = (call) => {
  changed = call;
};
export const set = (values) => {
  Object.assign(state, values);
  changed();
};
export const told = (error) => set({ status: error.message });
// The same of a voice that was to be kept under a name.
export const toldOfName = (error) => (error.body?.error?.code === "name_taken" ? set({ status: t("nameTaken") }) : told(error));

export const loadVoices = async () => {
  const listed = await server.get("/v1/audio/voices");
  set({ voices: listed.data.filter((voice) => !voice.alias_of) });
};

export const loadDirections = async () => set({ directions: (await server.get("/v1/audio/directions")).data });

// What the page knows from the server, asked for again; the expression stays, and the first voice speaks where there is none.
export const reload = async () => {
  try {
    const [models] = await Promise.all([server.get("/v1/models"), loadDirections()]);
    set({ model: models.data[0] });
    await loadVoices();
    const first = state.voices.find((voice) => voice.consent !== "refused");
    if (state.expression) await read(state.expression);
    else if (first) await read(quoted(first.name));
  } catch (error) {
    told(error);
  }
};

export const begin = async () => {
  set({ text: t("firstText") });
  try {
    set({ takes: (await shelf.takes()).reverse() });
  } catch (error) {
    told(error); // a browser that keeps nothing speaks all the same
  }
  await reload();
};

const settings = () => {
  const { text, language, instructions, expression, temperature, speed } = state;
  const made = { input: text, voice: expression, language, instructions };
  for (const [name, value] of Object.entries({ temperature, speed })) if (value !== "") made[name] = Number(value);
  return Object.fromEntries(Object.entries(made).filter(([, value]) => value !== ""));
};

const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

const LEAD = 1.2; // seconds by which a speech may be ahead of what is heard, so that a slider is heard soon

export const speak = () => {
  const given = /^\d{1,15}$/.test(state.seed.trim()) ? Number(state.seed) : null;
  if (state.keepSeed && given === null) return set({ status: t("seedIsNumber") });
  const seed = state.keepSeed ? given : newSeed();
  set({ seed: String(seed) });
  return make(settings(), seed);
};

export const again = (take) => make(take.settings, take.seed);
export const vary = (take) => make(take.settings, newSeed());

let running = null;

// Has something spoken, lets it be heard as it comes, and keeps what was made: all of it, or as far as it was let.
const make = async (asked, seed) => {
  halt();
  const own = (running = new AbortController());
  const parts = [];
  let sound = null;
  let whole = false;
  const turns = [...(asked.steering ?? [])];
  set({ speaking: true, playing: null, status: t("speaking"), heard: asked.voice, fixed: null });
  try {
    sound = await play(() => own === running && set({ speaking: false }));
    for await (const samples of server.spoken({ ...asked, seed, lead: LEAD }, own.signal, (id) => live.begun(id, turns, asked.voice))) {
      parts.push(samples);
      sound.add(samples.slice());
    }
    whole = true;
    set({ status: "" });
  } catch (error) {
    if (error.name === "AbortError") set({ status: t("stopped") });
    else told(error);
  }
  if (running === own) live.over();
  sound?.finish(); // it is heard to its end, with whatever there is of it
  if (running === own && !parts.length) halt();
  const samples = joined(parts);
  if (!samples.length) return;
  const settings = turns.length ? { ...asked, steering: turns } : asked;
  const take = { made: Date.now(), settings, seed, whole, samples };
  take.id = await shelf.keep(take);
  set({ takes: [take, ...state.takes] });
};

// Ends whatever is spoken or heard.
export const halt = () => {
  running?.abort();
  running = null;
  live.over();
  stop();
  set({ speaking: false, playing: null });
};

export const hear = async ({ id, samples }) => {
  halt();
  set({ playing: id, status: "" });
  const sound = await play(() => state.playing === id && set({ playing: null }));
  sound.add(samples.slice());
  sound.finish();
};
export const hearSamples = (samples) => hear({ id: "recording", samples });

// What another tab keeps or deletes is seen here too.
shelf.watch(async () => set({ takes: (await shelf.takes()).reverse() }));

export const forget = async (take) => {
  if (state.playing === take.id) halt();
  await shelf.forget(take.id);
  set({ takes: state.takes.filter((one) => one.id !== take.id) });
};

export const seconds = (samples) => samples.length / RATE;
