// The voices in two dimensions: hear them, blend two by drawing a line; and the same as a list.

import { audition } from "./audition.js";
import { Chart, GROUPS, shade } from "./chart.js";
import { quoted, read } from "./expression.js";
import { html, useEffect, useMemo, useRef } from "./htm.js";
import { post } from "./server.js";
import { set, state, told } from "./store.js";
import { t } from "./words.js";

const STEP = 40; // pixels of an arrow key
const CLICK = 6; // pixels that a click may move
const SHOWN = 30; // of the list
const FEWEST = 3; // voices that make a map
const own = {
  drawn: null, // {axes, voices, total}
  colour: "", // "", tag:NAME or a direction's factor
  scores: null, // of the voices, by name, along that direction
  chosen: null,
  from: null, // where a blend of the list begins
  shown: SHOWN,
};
const put = (values) => {
  Object.assign(own, values);
  set({});
};

let loads = 0;
const load = async () => {
  const mine = ++loads;
  try {
    const drawn = await (await post("/v1/audio/voices/map", {})).json();
    if (mine === loads) put({ drawn });
  } catch (error) {
    told(error);
  }
};

const card = (name) => state.voices.find((voice) => voice.name === name);

const choose = (name) => {
  put({ chosen: name });
  audition(card(name) ?? { name });
};

const blend = (one, other) => {
  put({ chosen: other, from: null });
  set({ status: t("map-blended", { one, other }) });
  read(`0.5*${quoted(one)} + 0.5*${quoted(other)}`);
};

const number = (text) => (text?.trim() ? Number(text) : NaN);

const colourBy = async (colour) => {
  put({ colour, scores: null });
  if (!colour) return;
  if (colour.startsWith("tag:")) {
    const tagged = state.voices.map(({ name, attributes }) => [name, attributes[colour.slice(4)]]).filter(([, value]) => value !== undefined);
    if (tagged.every(([, value]) => Number.isFinite(number(value)))) put({ scores: new Map(tagged.map(([name, value]) => [name, number(value)])) });
    return;
  }
  try {
    const found = await (await post("/v1/audio/voices/search", { voice: colour, k: 1000, packs: false })).json();
    if (own.colour === colour) put({ scores: new Map(found.map(({ name, score }) => [name, score])) });
  } catch (error) {
    told(error);
  }
};

// What the colours mean: a function from a name to one, and the lines of the legend.
const colours = () => {
  if (own.colour.startsWith("tag:") && !own.scores) {
    const tag = own.colour.slice(4);
    const of = new Map(state.voices.map(({ name, attributes }) => [name, attributes[tag]]));
    const counts = new Map();
    for (const value of of.values()) if (value !== undefined) counts.set(value, (counts.get(value) ?? 0) + 1);
    const values = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || a.localeCompare(b, undefined, { numeric: true }));
    const place = (value) => Math.min(values.indexOf(value), GROUPS.length - 1);
    const legend = values.slice(0, GROUPS.length).map((value, i) => [GROUPS[i], i === GROUPS.length - 1 && values.length > GROUPS.length ? t("map-others") : value || tag]);
    return { colour: (name) => (of.get(name) === undefined ? null : GROUPS[place(of.get(name))]), legend };
  }
  if (!own.scores?.size) return { colour: () => null, legend: [] };
  const sorted = [...own.scores.values()].sort((a, b) => a - b);
  const [least, most] = [sorted[0], sorted.at(-1)];
  const share = (score) => (most > least ? (score - least) / (most - least) : 0.5);
  const text = (x) => (own.colour.startsWith("tag:") ? String(x) : t("radii", { x: x.toFixed(2) }));
  const legend = [least, (least + most) / 2, most].map((score) => [shade(share(score)), text(Number(score.toFixed(3)))]);
  return { colour: (name) => (own.scores.has(name) ? shade(share(own.scores.get(name))) : null), legend };
};

// Mouse, finger and pen: one on a voice hears it or draws a line from it, one elsewhere moves the map, two zoom it.
const pointed = (chart) => {
  const canvas = chart.canvas;
  const down = new Map(); // pointers, by id
  let act = null; // {from, x, y, moved} of the first one
  const where = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const spread = () => {
    const [[ax, ay], [bx, by]] = [...down.values()];
    return { far: Math.hypot(ax - bx, ay - by), x: (ax + bx) / 2, y: (ay + by) / 2 };
  };
  const on = {
    pointerdown(event) {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      const [x, y] = where(event);
      down.set(event.pointerId, [x, y]);
      act = down.size === 1 ? { from: chart.at(x, y, event.pointerType === "touch" ? 24 : undefined), x, y, moved: false } : { pinch: spread() };
      chart.link = null;
    },
    pointermove(event) {
      const [x, y] = where(event);
      if (!down.has(event.pointerId)) {
        const over = chart.at(x, y);
        if (over !== chart.over) Object.assign(chart, { over }).draw();
        canvas.style.cursor = over ? "pointer" : "grab";
        return;
      }
      const [px, py] = down.get(event.pointerId);
      down.set(event.pointerId, [x, y]);
      if (act?.pinch && down.size === 2) {
        const next = spread();
        chart.zoom(next.far / Math.max(1, act.pinch.far), next.x, next.y);
        chart.pan(next.x - act.pinch.x, next.y - act.pinch.y);
        act.pinch = next;
        return;
      }
      if (!act || act.pinch) return;
      act.moved ||= Math.hypot(x - act.x, y - act.y) > CLICK;
      if (act.moved && act.from) Object.assign(chart, { link: { from: act.from, x, y }, over: chart.at(x, y) }).draw();
      else if (act.moved) chart.pan(x - px, y - py);
    },
    pointerup(event) {
      if (!down.delete(event.pointerId) || !act) return;
      const target = chart.at(...where(event));
      if (!act.pinch && !act.moved && act.from) choose(act.from);
      if (!act.pinch && act.moved && act.from && target && target !== act.from) blend(act.from, target);
      Object.assign(chart, { link: null }).draw();
      act = null;
    },
    pointercancel(event) {
      down.delete(event.pointerId);
      act = null;
      Object.assign(chart, { link: null }).draw();
    },
    wheel(event) {
      event.preventDefault();
      chart.zoom(Math.exp(-event.deltaY / 400), ...where(event));
    },
    keydown(event) {
      const move = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] }[event.key];
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (move) chart.pan(...move);
      else if (event.key === "+" || event.key === "=") chart.zoom(1.4);
      else if (event.key === "-") chart.zoom(1 / 1.4);
      else if (event.key === "0") chart.fit();
      else if (event.key === "Enter" && own.chosen) choose(own.chosen);
      else return;
      event.preventDefault();
    },
  };
  for (const [name, call] of Object.entries(on)) canvas.addEventListener(name, call, { passive: false });
};

// As far from the chosen voice as on the map; else by name.
const nearest = () => {
  const here = own.drawn.voices.find(({ name }) => name === own.chosen);
  if (!here) return own.drawn.voices;
  const far = ({ x, y }) => Math.hypot(x - here.x, y - here.y);
  return [...own.drawn.voices].sort((a, b) => far(a) - far(b));
};

const Listed = () => html`<details><summary>${t("map-list")}</summary>
  <p class="about">${t("map-order")}</p>
  <ul aria-label=${t("map-list")} class="cards shelf">${nearest().slice(0, own.shown).map(({ name, x, y }) => html`<li key=${name} class="row small">
    <span class="grow">${name} <small class="about">${x.toFixed(2)}, ${y.toFixed(2)}${own.scores?.has(name) ? ` · ${own.scores.get(name).toFixed(2)}` : ""}</small></span>
    <button aria-label=${t("map-hear", { name })} onClick=${() => choose(name)}>${t("play")}</button>
    ${own.from && own.from !== name
      ? html`<button aria-label=${t("map-with", { one: own.from, name })} onClick=${() => blend(own.from, name)}>${t("with")} ${own.from}</button>`
      : html`<button aria-pressed=${own.from === name} aria-label=${t("map-from", { name })}
          onClick=${() => put({ from: own.from === name ? null : name })}>${t("blend")} …</button>`}
  </li>`)}</ul>
  ${own.drawn.voices.length > own.shown && html`<button onClick=${() => put({ shown: own.shown + 5 * SHOWN })}>
    ${t("lib-more", { n: own.drawn.voices.length - own.shown })}</button>`}
</details>`;

const axis = ({ direction, share }, which) => (direction ? direction : t(which, { x: Math.round(100 * share) }));

export const Atlas = () => {
  const canvas = useRef(null);
  const chart = useRef(null);
  useEffect(() => {
    chart.current = new Chart(canvas.current);
    canvas.current.chart = chart.current;
    pointed(chart.current);
    const sized = new ResizeObserver(() => chart.current.points.length && chart.current.fit());
    sized.observe(canvas.current);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const again = () => chart.current.draw();
    dark.addEventListener("change", again);
    return () => {
      sized.disconnect();
      dark.removeEventListener("change", again);
    };
  }, []);
  useEffect(() => void load(), [state.voices]);
  useEffect(() => own.drawn && chart.current.show(own.drawn.voices), [own.drawn]);
  const { colour, legend } = useMemo(colours, [own.colour, own.scores, state.voices]);
  useEffect(() => Object.assign(chart.current, { colour, chosen: own.chosen }).draw(), [colour, own.chosen]);
  const tags = useMemo(() => [...new Set(state.voices.flatMap((voice) => Object.keys(voice.attributes)))].sort(), [state.voices]);
  const list = useMemo(() => own.drawn && html`<${Listed} />`, [own.drawn, own.chosen, own.from, own.shown, own.scores]);
  const zoom = (factor) => () => (factor ? chart.current.zoom(factor) : chart.current.fit());
  return html`<section class="wide">
    <h2>${t("map-title")}</h2>
    <p class="about" id="map-help">${t("map-help")}</p>
    <canvas ref=${canvas} class="map" role="img" tabindex="0" aria-label=${t("map-title")} aria-describedby="map-help"></canvas>
    ${own.drawn && html`<p class="about">${axis(own.drawn.axes[0], "map-across")} · ${axis(own.drawn.axes[1], "map-up")}
      ${own.drawn.total > own.drawn.voices.length && ` · ${t("map-some", { n: own.drawn.voices.length, of: own.drawn.total })}`}</p>`}
    <div class="row">
      <label>${t("map-colour")}<select onChange=${(event) => colourBy(event.target.value)}>
        <option value="">${t("map-plain")}</option>
        ${tags.map((tag) => html`<option value=${`tag:${tag}`} selected=${own.colour === `tag:${tag}`}>${tag}</option>`)}
        ${state.directions.map(({ factor }) => html`<option value=${factor} selected=${own.colour === factor}>${factor}</option>`)}
      </select></label>
      <button aria-label=${t("map-nearer")} onClick=${zoom(1.6)}>+</button>
      <button aria-label=${t("map-farther")} onClick=${zoom(1 / 1.6)}>−</button>
      <button onClick=${zoom(0)}>${t("map-all")}</button>
    </div>
    ${legend.length > 0 && html`<ul class="legend" aria-label=${t("map-colour")}>${legend.map(([shown, text]) => html`<li><svg width="12" height="12"
      aria-hidden="true"><circle cx="6" cy="6" r="5" fill=${shown} /></svg> ${text}</li>`)}</ul>`}
    ${list}
  </section>`;
};

export const mapped = () => state.voices.length >= FEWEST;
