// A script of many voices: who speaks, line by line, and what has been spoken of it. The server reads it; each piece is a
// speech of its own, kept until the page is left.

import { html, useMemo } from "./htm.js";
import { post } from "./server.js";
import { RATE, download, wavOf } from "./sound.js";
import { halt, hear, set, state, told } from "./store.js";
import { t } from "./words.js";

const AT_ONCE = 3; // pieces on their way
const PAUSE = 400; // ms without a change before the server is asked
const COLOURS = 8;
const NARRATOR = "narrator"; // as the server calls it
const MARGIN = 0.1; // seconds of silence that stay around a piece
const QUIET = 1 / 100; // of its loudest 20 ms

const own = {
  text: "",
  chosen: {}, // {name: voice or expression} as chosen here
  read: null, // what the server made of it
  wrong: null,
  seeds: {}, // {key of a piece: seed} of those said again
  running: null, // AbortController
  making: new Set(), // keys of pieces on their way
  failed: {}, // {key: message}
};
const spoken = new Map(); // what was asked for, as JSON, to its samples, Int16Array

const again = () => set({});
const asked = (piece) => {
  const { text, voice, instructions, rate, language, seed } = piece;
  const values = { input: text, voice, instructions, rate, language, seed: own.seeds[piece.key] ?? seed, text_mode: "full" };
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null));
};
const sound = (piece) => spoken.get(JSON.stringify(asked(piece)));
const pieces = () => (own.read?.lines ?? []).flatMap((line) => line.pieces);
const isDone = (line) => line.pieces.every(sound);
const casting = () => ({ input: own.text, voices: own.chosen, seeds: own.seeds });

// Reading

let timer = null;
let count = 0;

const readScript = async () => {
  const mine = ++count;
  if (!own.text.trim()) {
    Object.assign(own, { read: null, wrong: null });
    return again();
  }
  try {
    const read = await (await post("/v1/audio/scripts", { input: own.text, voices: own.chosen })).json();
    if (mine === count) Object.assign(own, read.error ? { read: null, wrong: read.error.message } : { read, wrong: null });
  } catch (error) {
    if (mine === count) Object.assign(own, { read: null, wrong: error.message });
  }
  again();
};

const later = () => {
  own.running?.abort();
  count += 1;
  clearTimeout(timer);
  timer = setTimeout(readScript, PAUSE);
};

const type = (event) => {
  own.text = event.target.value;
  later();
  again();
};

const cast = (name, voice) => {
  if (voice.trim()) own.chosen[name] = voice.trim();
  else delete own.chosen[name];
  later();
};

// Speaking

// Samples without the silence at both ends, but for a little.
const trimmed = (samples) => {
  const hop = RATE / 50;
  const levels = [];
  for (let at = 0; at < samples.length; at += hop) {
    let sum = 0;
    for (let i = at; i < Math.min(samples.length, at + hop); i++) sum += samples[i] * samples[i];
    levels.push(Math.sqrt(sum / hop));
  }
  const least = levels.reduce((most, level) => Math.max(most, level), 0) * QUIET;
  const first = levels.findIndex((level) => level >= least);
  const last = levels.findLastIndex((level) => level >= least);
  return samples.slice(Math.max(0, first * hop - MARGIN * RATE), (last + 1) * hop + MARGIN * RATE);
};

const speakPiece = async (piece, signal) => {
  const values = asked(piece);
  own.making.add(piece.key);
  delete own.failed[piece.key];
  again();
  try {
    const response = await post("/v1/audio/speech", { ...values, response_format: "pcm" }, signal);
    const bytes = await response.arrayBuffer();
    spoken.set(JSON.stringify(values), trimmed(new Int16Array(bytes, 0, bytes.byteLength >> 1)));
  } catch (error) {
    if (error.name !== "AbortError") own.failed[piece.key] = error.message;
  } finally {
    own.making.delete(piece.key);
    again();
  }
};

// Speaks pieces, a few at once, in their order.
const speakPieces = async (wanted) => {
  const mine = (own.running ??= new AbortController());
  const waiting = wanted.filter((piece) => !sound(piece) && !own.making.has(piece.key) && !piece.error);
  const one = async () => {
    while (waiting.length && !mine.signal.aborted) await speakPiece(waiting.shift(), mine.signal);
  };
  again();
  await Promise.all(Array.from({ length: AT_ONCE }, one));
  if (own.running === mine && !own.making.size) own.running = null;
  again();
};

const stop = () => {
  own.running?.abort();
  own.running = null;
  again();
};

// Hearing

const silence = (seconds) => new Int16Array(Math.round(seconds * RATE));
const ofLine = (line) => line.pieces.flatMap((piece, i) => (i ? [silence(piece.pause), sound(piece)] : [sound(piece)]));

const play = async (line) => {
  if (state.playing === `line-${line.line}`) return halt();
  if (!isDone(line)) await speakPieces(line.pieces);
  if (!isDone(line)) return;
  const parts = ofLine(line);
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) for (const x of part) whole[at++] = x / 32768;
  await hear({ id: `line-${line.line}`, samples: whole });
};

const vary = async (line) => {
  for (const piece of line.pieces) own.seeds[piece.key] = crypto.getRandomValues(new Uint32Array(1))[0];
  await speakPieces(line.pieces);
};

// Keeping

const wav = () => download(wavOf(pieces().flatMap((piece) => [silence(piece.pause), sound(piece)])), "script.wav");

// The server speaks it once more, with the same seeds, as MP3.
const mp3 = async () => {
  try {
    set({ status: t("scriptEncoding") });
    const response = await post("/v1/audio/scripts/speech", { ...casting(), response_format: "mp3" });
    download(await response.blob(), "script.mp3");
    set({ status: "" });
  } catch (error) {
    told(error);
  }
};

// What is shown

const colour = (name) => {
  const at = own.read.cast.findIndex((one) => one.name.toLowerCase() === (name ?? NARRATOR).toLowerCase());
  return `cast-${Math.max(0, at) % COLOURS}`;
};

// What is wrong with who speaks, in words of this page where no voice has that name and none was chosen.
const mistake = (name, error) => {
  const uncast = error && name && name !== NARRATOR && !own.chosen[name] && !state.voices.some((voice) => voice.name === name);
  return uncast ? t("scriptUncast", { name }) : error;
};

const Role = ({ role, number }) => {
  const chosen = own.chosen[role.name] ?? "";
  return html`<li class=${`role ${colour(role.name)}`}>
    <label>${role.name === NARRATOR ? t("scriptNarrator") : role.name}<input list="script-voices" autocomplete="off" spellcheck="false" aria-invalid=${role.error !== null}
      aria-describedby=${`role-${number}`} placeholder=${role.error ? t("scriptNobody") : role.voice} value=${chosen}
      onChange=${(event) => cast(role.name, event.target.value)} /></label>
    <p id=${`role-${number}`} class=${role.error ? "wrong" : "about"}>
      ${mistake(role.name, role.error) ?? t("scriptShare", { n: role.pieces, s: Math.round(role.seconds) })}</p>
  </li>`;
};

const progress = (line) => {
  const failed = line.pieces.map((piece) => own.failed[piece.key] ?? mistake(line.name, piece.error)).find(Boolean);
  if (failed) return html`<span class="wrong">${failed}</span>`;
  if (line.pieces.some((piece) => own.making.has(piece.key))) return t("scriptMaking");
  if (!isDone(line)) return t("scriptWaiting");
  return `${(ofLine(line).reduce((sum, part) => sum + part.length, 0) / RATE).toFixed(1)} s`;
};

const Line = ({ line }) => {
  const n = line.line;
  const heard = state.playing === `line-${n}`;
  const doubts = own.read.doubts.filter((one) => one.line === n);
  return html`<li class=${`line ${colour(line.name)} ${line.heading ? "heading" : ""}`}>
    <button class="words" aria-label=${t(heard ? "scriptQuiet" : "scriptHear", { n })} aria-pressed=${heard} onClick=${() => play(line)}>
      <b>${line.name ?? ""}</b> ${line.text}</button>
    <p class="about">${n} · ${progress(line)} <button class="vary" aria-label=${t("scriptVaryLine", { n })}
      disabled=${line.pieces.some((piece) => piece.error || own.making.has(piece.key))} onClick=${() => vary(line)}>${t("scriptVary")}</button></p>
    ${doubts.map((one) => html`<p class="about">⚠ ${one.doubt}</p>`)}
  </li>`;
};

export const Script = () => {
  const lines = own.read?.lines ?? [];
  const done = lines.filter(isDone).length;
  const ready = lines.length > 0 && done === lines.length;
  const names = useMemo(() => state.voices.filter(({ consent }) => consent !== "refused").map(({ name }) => html`<option value=${name} />`), [state.voices]);
  return html`<section class="script">
    <h2>${t("script")}</h2>
    <label>${t("script")}<textarea rows="8" placeholder=${t("scriptHint")} aria-describedby="script-error" value=${own.text} onInput=${type}></textarea></label>
    <p id="script-error" class="wrong" aria-live="polite">${own.wrong}</p>
    ${own.read && html`
      <datalist id="script-voices">${names}</datalist>
      <ul class="cast" aria-label=${t("scriptCast")}>${own.read.cast.map((role, number) => html`<${Role} key=${role.name} role=${role} number=${number} />`)}</ul>
      <div class="row">
        <button class="main" disabled=${own.running !== null || ready} onClick=${() => speakPieces(pieces())}>${t("scriptRender")}</button>
        <button disabled=${own.running === null} onClick=${stop}>${t("scriptEnd")}</button>
        <button disabled=${!ready} onClick=${wav}>${t("scriptWav")}</button>
        <button disabled=${!ready} onClick=${mp3}>${t("scriptMp3")}</button>
      </div>
      <div class="meter"><progress aria-label=${t("scriptProgress")} max=${lines.length} value=${done}></progress>
        <span role="status">${t("scriptDone", { done, all: lines.length, s: Math.round(own.read.seconds) })}</span></div>
      <ol class="lines" aria-label=${t("scriptLines")}>${lines.map((line) => html`<${Line} key=${line.line} line=${line} />`)}</ol>`}
  </section>`;
};
