// The expression is the one truth: what the server read in it becomes the sliders, and a slider that moves writes it anew.

import { follow } from "./live.js";
import { post } from "./server.js";
import { set, state, told } from "./store.js";

const PLAIN = /^[^\s+*@()",:]+$/;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;
const PAUSE = 150; // ms without a change before the server is asked

// A name as an expression takes it.
export const quoted = (name) =>
  PLAIN.test(name) && !NUMBER.test(name) && !/^[+-]/.test(name) ? name : `"${name.replace(/[\\"]/g, "\\$&")}"`;

export const written = (terms) =>
  terms
    .map(({ weight, factor }, i) => {
      const shown = String(Number((i ? Math.abs(weight) : weight).toFixed(3)));
      const sign = i ? (weight < 0 ? " - " : " + ") : "";
      return sign + (shown === "1" ? factor : `${shown}*${factor}`);
    })
    .join("");

let asked = 0;

// Lets the server read an expression.
export const read = async (expression) => {
  const own = ++asked;
  set({ expression });
  try {
    const { terms, error } = await (await post("/v1/audio/expressions", { expression })).json();
    if (own !== asked) return;
    set(error ? { error: error.message } : { terms, error: null });
    if (!error) follow(expression);
  } catch (error) {
    if (own === asked) told(error);
  }
};

let timer = null;
export const type = (expression) => {
  asked += 1;
  set({ expression });
  clearTimeout(timer);
  timer = setTimeout(() => read(expression), PAUSE);
};

const write = (terms) => {
  const expression = written(terms);
  set({ terms, error: null });
  type(expression);
  follow(expression); // at once: what is written here can be read
};

const isVoice = (term) => term.kind !== "direction";
export const voices = () => state.terms.filter(isVoice);
const moves = () => state.terms.filter((term) => !isVoice(term));
const voice = (name, weight) => ({ weight, factor: quoted(name), name, kind: "voice" });

export const strength = (direction) =>
  state.terms.filter((one) => one.kind === "direction" && one.name === direction.name).reduce((sum, one) => sum + one.weight, 0);

export const move = ({ name, factor }, weight) => {
  const at = state.terms.findIndex((one) => one.kind === "direction" && one.name === name);
  const rest = state.terms.filter((one) => one.kind !== "direction" || one.name !== name);
  const place = at < 0 ? rest.length : Math.min(at, rest.length);
  if (weight) rest.splice(place, 0, { weight, factor, name, kind: "direction" });
  write(rest);
};

export const reset = () => write(state.terms.filter(isVoice));

// The first voice alone, in the place of all others.
export const choose = (name) => write([voice(name, 1), ...moves()]);

// What the fader shows: the two voices and how far it is from the first to the second; null for three voices and more.
export const fader = () => {
  const [one, other, ...more] = voices();
  if (!one || more.length || one.weight < 0 || (other && other.weight < 0)) return null;
  if (!other) return { one, other: null, t: 0 };
  const total = one.weight + other.weight;
  return total > 0 ? { one, other, t: other.weight / total } : null;
};

export const fade = (t) => {
  const { one, other } = fader();
  write([{ ...one, weight: 1 - t }, { ...other, weight: t }, ...moves()]);
};

export const second = (name) => {
  const { one, t } = fader();
  const share = t || 0.5;
  write(name ? [{ ...one, weight: 1 - share }, voice(name, share), ...moves()] : [{ ...one, weight: 1 }, ...moves()]);
};

// Two voices and more with their shares, which sum to one; null where a weight is negative or there are more than four.
export const blended = () => {
  const mixed = voices();
  const total = mixed.reduce((sum, one) => sum + one.weight, 0);
  if (mixed.length > 4 || total <= 0 || mixed.some((one) => one.weight < 0)) return null;
  return { voices: mixed, weights: mixed.map((one) => one.weight / total) };
};

// Gives every voice a share, in hundredths that sum to one.
export const mix = (weights) => {
  const shares = weights.map((one) => Math.round(100 * one));
  const most = shares.indexOf(Math.max(...shares));
  shares[most] += 100 - shares.reduce((sum, one) => sum + one);
  write([...voices().map((one, i) => ({ ...one, weight: shares[i] / 100 })), ...moves()]);
};

export const add = (name) => {
  const { voices: mixed, weights } = blended();
  const count = mixed.length + 1;
  const rest = mixed.map((one, i) => ({ ...one, weight: (weights[i] * (count - 1)) / count }));
  write([...rest, voice(name, 1 / count), ...moves()]);
};

// Another voice in the place of one; without a name it is taken out, and the others share.
export const replaced = (place, name) => {
  const mixed = voices();
  if (name) mixed[place] = voice(name, mixed[place].weight);
  else mixed.splice(place, 1);
  const total = mixed.reduce((sum, one) => sum + one.weight, 0);
  const equal = 1 / mixed.length;
  write([...mixed.map((one) => ({ ...one, weight: total > 0 ? one.weight / total : equal })), ...moves()]);
};
