// Two takes side by side, as loud as each other: A against B, and blind, which of them X is.

import { chance, coin, gains, loudness } from "./abx.js";
import { html } from "./htm.js";
import { spoken } from "./server.js";
import * as shelf from "./shelf.js";
import { RATE, borrow, joined } from "./sound.js";
import { halt, set, state, told } from "./store.js";
import { begin, turn } from "./switch.js";
import { t } from "./words.js";

const KEY = "studio.abx";
const TRIALS = [5, 10, 16, 25];
const ENOUGH = 0.05; // of p
const own = {
  a: null, // ids of the takes that are compared; null for the newest two
  b: null,
  heard: null, // a, b or x
  trials: 10,
  test: JSON.parse(localStorage.getItem(KEY)), // {a, b, names, trials, answers: [{x, said}]}
  x: coin(), // what X is in this trial: 0 for A
};

const put = (values) => {
  Object.assign(own, values);
  set({});
};
const keep = (test) => {
  if (test) localStorage.setItem(KEY, JSON.stringify(test));
  else localStorage.removeItem(KEY);
  put({ test, x: coin() });
};

const take = (id) => state.takes.find((one) => one.id === id) ?? null;
const pair = () => {
  if (own.test) return [take(own.test.a), take(own.test.b)];
  const [newest, older] = state.takes;
  return [take(own.a) ?? older ?? null, take(own.b) ?? newest ?? null];
};

const measured = new WeakMap();
const loud = ({ samples }) => {
  if (!measured.has(samples)) measured.set(samples, loudness(samples, RATE));
  return measured.get(samples);
};

const listen = async (which) => {
  const to = which === "x" ? own.x : which === "b" ? 1 : 0;
  if (own.heard) {
    turn(to);
    return put({ heard: which });
  }
  const both = pair();
  if (!both[0] || !both[1]) return;
  halt();
  const levels = gains(...both.map(loud));
  put({ heard: which });
  set({ playing: "compare", status: "" });
  await begin(both.map((one, i) => [one.samples, levels[i]]), to, () => {
    put({ heard: null });
    if (state.playing === "compare") set({ playing: null });
  });
};

const answer = (said) => {
  const { test, x } = own;
  if (!test || over(test)) return;
  halt(); // the next X begins anew, so that nothing is heard of the change
  keep({ ...test, answers: [...test.answers, { x, said }] });
};

const over = (test) => test.answers.length >= test.trials;

const blind = () => {
  const [a, b] = pair();
  halt();
  keep({ a: a.id, b: b.id, names: [a, b].map(label), trials: own.trials, answers: [] });
};

// Both lines again, with one new seed; they are compared from then on.
const both = async () => {
  const chosen = pair();
  halt();
  const cancel = new AbortController();
  await borrow(() => cancel.abort());
  const seed = crypto.getRandomValues(new Uint32Array(1))[0];
  set({ speaking: true, status: t("abx-speaking") });
  try {
    const made = [];
    for (const { settings } of chosen) {
      const parts = [];
      for await (const samples of spoken({ ...settings, seed }, cancel.signal, () => {})) parts.push(samples);
      made.push({ made: Date.now(), settings, seed, whole: true, samples: joined(parts) });
    }
    for (const one of made) {
      one.id = await shelf.keep(one);
      set({ takes: [one, ...state.takes] });
    }
    put({ a: made[0].id, b: made[1].id });
    set({ status: t("abx-spoken", { seed }) });
  } catch (error) {
    if (error.name === "AbortError") set({ status: "" });
    else told(error);
  }
  set({ speaking: false });
};

const label = ({ id, settings, seed }) => `${id}: ${settings.voice} · ${t("seed")} ${seed} · ${settings.input.slice(0, 30)}`;

const Choice = ({ which, chosen }) => html`<label>${t("abx-take", { x: which.toUpperCase() })}
  <select disabled=${own.test !== null} onChange=${(event) => (halt(), put({ [which]: Number(event.target.value) }))}>
    ${state.takes.map((one) => html`<option value=${one.id} selected=${one.id === chosen?.id}>${label(one)}</option>`)}
  </select></label>`;

const Listen = ({ which }) => html`<button type="button" class="letter" aria-pressed=${own.heard === which} onClick=${() => listen(which)}>
  ${which.toUpperCase()}</button>`;

const Levels = ({ a, b }) => {
  const both = [a, b].map(loud);
  const down = gains(...both).map((gain) => -20 * Math.log10(gain));
  const x = Math.max(...down);
  const told = x < 0.05 ? t("abx-equal") : t("abx-level", { x: x.toFixed(1), which: down[0] > down[1] ? "A" : "B" });
  return html`<p class="about">${told}</p>`;
};

const percent = (p) => (p < 0.001 ? `< 0.1 %` : `${(100 * p).toFixed(1)} %`);

// What a test has shown, in words.
export const verdict = (answers) => {
  const right = answers.filter(({ x, said }) => x === said).length;
  const p = chance(right, answers.length);
  return [t("abx-right", { right, trials: answers.length }), t("abx-guessing", { percent: percent(p), p: p < 0.001 ? "< 0.001" : p.toFixed(3) }),
    t(p <= ENOUGH ? "abx-heard" : "abx-luck")].join(t("space"));
};

const Test = ({ test, there }) => html`
  <p class="about">A: ${test.names[0]}<br />B: ${test.names[1]}</p>
  ${over(test)
    ? html`<p role="status"><strong>${verdict(test.answers)}</strong></p>`
    : html`<p role="status">${t("abx-trial", { n: test.answers.length + 1, of: test.trials })}</p>
      ${there ? html`<div class="row">${["a", "b", "x"].map((which) => html`<${Listen} which=${which} />`)}
        ${["A", "B"].map((x, said) => html`<button type="button" onClick=${() => answer(said)}>${t("abx-is", { x })}</button>`)}</div>`
      : html`<p class="wrong">${t("abx-gone")}</p>`}`}
  <div class="row">
    ${test.answers.length > 0 && !over(test) && html`<button type="button"
      onClick=${() => (halt(), keep({ ...test, trials: test.answers.length }))}>${t("abx-end")}</button>`}
    <button type="button" onClick=${() => (halt(), keep(null))}>${t("abx-reset")}</button></div>`;

const keys = (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("select, input")) return;
  const key = event.key.toLowerCase();
  if (key === "a" || key === "b" || (key === "x" && own.test && !over(own.test))) listen(key);
  else if (key === "1" || key === "2") answer(Number(key) - 1);
  else if (key === "escape") halt();
  else return;
  event.preventDefault();
};

export const Compare = () => {
  const [a, b] = pair();
  const there = a !== null && b !== null && a.id !== b.id;
  return html`<section aria-label=${t("abx-title")} tabindex="-1" onKeyDown=${keys}>
    <h2>${t("abx-title")}</h2>
    ${!own.test && state.takes.length < 2 && html`<p class="about">${t("abx-few")}</p>`}
    ${!own.test && state.takes.length > 1 && html`
      <div class="row"><${Choice} which="a" chosen=${a} /><${Choice} which="b" chosen=${b} /></div>
      ${there && html`<${Levels} a=${a} b=${b} />
      <div class="row"><${Listen} which="a" /><${Listen} which="b" />
        <button type="button" disabled=${state.speaking} onClick=${both}>${t("abx-both")}</button></div>
      <div class="row"><label>${t("abx-trials")}<select onChange=${(event) => put({ trials: Number(event.target.value) })}>
        ${TRIALS.map((n) => html`<option value=${n} selected=${n === own.trials}>${n}</option>`)}</select></label>
        <button type="button" onClick=${blind}>${t("abx-begin")}</button></div>`}`}
    ${own.test && html`<${Test} test=${own.test} there=${there} />`}
    ${(own.test || there) && html`<p class="about">${t("abx-keys")}</p>`}
  </section>`;
};
