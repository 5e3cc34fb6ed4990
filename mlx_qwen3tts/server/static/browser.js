// The page /browser: recordings become vectors here, are compared, blended and downloaded. Nothing is sent anywhere.

import { html, render } from "./htm.js";
import { embed, load, refusal } from "./embed.js";
import { LEAST, MOST, decoded as read, faults, record } from "./microphone.js";
import { RATE, download } from "./sound.js";
import { blend, cosine, decoded, fingerprint, inherited, likeness, norm, npy, safetensors } from "./vectors.js";
import { LANGUAGES, choose, language, loadWords, t } from "./words.js";

const state = {
  status: "",
  about: null, // what about.json says
  ready: false,
  busy: 0, // recordings that are computed on
  recording: null, // {seconds, level} while the microphone is open
  own: [], // recordings as voices, newest first
  voices: [], // that came with the page
  compared: null, // whose voice is compared, by its key
  blended: [null, null], // keys
  share: 0.5, // of the second
};
const set = (values) => {
  Object.assign(state, values);
  render(html`<${Page} />`, document.getElementById("page"));
};

let count = 0;
const all = () => [...state.own, ...state.voices];
const find = (key) => all().find((one) => one.key === key);
const change = (key, values) => set({ own: state.own.map((one) => (one.key === key ? { ...one, ...values } : one)) });

// A recording's samples become a voice of this page.
const add = async (samples, name) => {
  const wrong = refusal(samples);
  if (wrong) return set({ status: t(wrong, { name }) });
  set({ busy: state.busy + 1, status: t("browserEmbedding", { name }) });
  const start = performance.now();
  try {
    const vector = await embed(samples, state.about.bands);
    const took = (performance.now() - start) / 1000;
    const facts = { seconds: samples.length / RATE, took, faults: faults(samples) };
    const told = { source_model: state.about.source_model, fingerprint: await fingerprint(vector) };
    const made = { key: `own-${(count += 1)}`, name, vector, consent: "", license: null, ...told, ...facts };
    const other = state.own[0] ?? state.voices[0];
    set({ own: [made, ...state.own], compared: made.key, blended: [made.key, other?.key ?? made.key], status: t("browserDone", { name }) });
  } catch (error) {
    set({ status: error.message });
  }
  set({ busy: state.busy - 1 });
};

const take = async (files) => {
  for (const file of files) {
    const samples = await read(file);
    if (samples) await add(samples, file.name.replace(/\.\w+$/, ""));
    else set({ status: t("browserUnreadable", { name: file.name }) });
  }
};

let end = null; // of the recording that is being made

const finish = async () => {
  const stop = end;
  end = null;
  if (!stop) return;
  const samples = await stop();
  set({ recording: null });
  await add(samples, t("browserRecording", { n: count + 1 }));
};

const begin = async () => {
  set({ recording: { seconds: 0, level: 0 }, status: "" });
  try {
    end = await record(({ seconds, level }) => {
      if (!state.recording) return;
      set({ recording: { seconds, level } });
      if (seconds >= MOST) finish();
    });
  } catch (error) {
    set({ recording: null, status: error.message });
  }
};

const forget = (key) => {
  const own = state.own.filter((one) => one.key !== key);
  const first = own[0] ?? state.voices[0];
  const kept = (other) => (other === key ? (first?.key ?? null) : other);
  set({ own, compared: kept(state.compared), blended: state.blended.map(kept) });
};

const strings = ({ source_model, consent, license, recipe }) => ({
  source_model, consent, license, recipe: recipe && JSON.stringify(recipe),
});

// A name that is a file's on every system.
const fileName = (name, suffix) => `${name.replace(/[^\p{L}\p{N}._ -]+/gu, "_").slice(0, 64) || "voice"}.${suffix}`;

const Downloads = ({ voice }) =>
  ["npy", "safetensors"].map((suffix) => html`<button type="button" aria-label=${t("browserDownload", { name: voice.name, suffix })}
    onClick=${() => download((suffix === "npy" ? npy(voice.vector) : safetensors(voice.vector, strings(voice))), fileName(voice.name, suffix))}>
    ${`.${suffix}`}</button>`);

const Own = ({ voice }) => html`<li>
  <p class="said">${voice.name}</p>
  <p class="about">${t("browserFacts", { seconds: voice.seconds.toFixed(1), n: voice.vector.length, norm: norm(voice.vector).toFixed(2),
    took: voice.took.toFixed(1) })}</p>
  ${voice.faults.map(({ key, x }) => html`<p class="wrong">${t(key === "tooShort" ? "browserShort" : key, { x })}</p>`)}
  <label>${t("consent")}<select value=${voice.consent} onChange=${(event) => change(voice.key, { consent: event.target.value })}>
    <option value="">${t("known-unknown")}</option>
    ${["given", "not-needed"].map((word) => html`<option value=${word} selected=${word === voice.consent}>${t(`consent-${word}`)}</option>`)}
  </select></label>
  <div class="row small"><span class="about">${t("browserSave")}</span><${Downloads} voice=${voice} />
    <button type="button" aria-label=${t("deleteNamed", voice)} onClick=${() => forget(voice.key)}>${t("delete")}</button></div>
</li>`;

const Meter = ({ seconds, level }) => html`<div class="meter">
  <meter aria-label=${t("level")} min="0" max="1" low="0.02" high="0.98" optimum="0.5" value=${level}></meter>
  <progress aria-label=${t("length")} max=${MOST} value=${seconds}></progress>
  <span>${seconds.toFixed(0)} s${seconds < LEAST ? ` · ${t("atLeast", { x: LEAST })}` : ""}</span>
</div>`;

const drop = (event) => {
  event.preventDefault();
  if (state.ready) take([...event.dataTransfer.files]);
};

const Recordings = () => html`<section onDragOver=${(event) => event.preventDefault()} onDrop=${drop}>
  <h2>${t("browserRecordings")}</h2>
  <p class="about">${t("browserHelp", { least: LEAST, most: MOST })}</p>
  <div class="row">
    <button class="main" disabled=${!state.ready || (state.busy > 0 && !state.recording)} onClick=${state.recording ? finish : begin}>
      ${state.recording ? t("finish") : t("record")}</button>
    <label class="file">${t("file")}<input type="file" accept="audio/*" multiple disabled=${!state.ready}
      onChange=${(event) => take([...event.target.files])} /></label>
  </div>
  ${state.recording && html`<${Meter} ...${state.recording} />`}
  <ul aria-label=${t("browserRecordings")} class="cards">${state.own.map((voice) => html`<${Own} key=${voice.key} voice=${voice} />`)}</ul>
</section>`;

const Choice = ({ name, value, choose }) => html`<label>${name}<select value=${value} onChange=${(event) => choose(event.target.value)}>
  ${all().map((one) => html`<option value=${one.key} selected=${one.key === value}>${one.name}</option>`)}
</select></label>`;

const Compare = () => {
  const one = find(state.compared);
  const { mean } = state;
  const rows = all().filter(({ key }) => key !== one.key).map((other) => ({
    other, raw: cosine(one.vector, other.vector), centred: mean && likeness(one.vector, other.vector, mean),
  }));
  rows.sort((a, b) => (mean ? b.centred - a.centred : b.raw - a.raw));
  return html`<section>
    <h2>${t("browserCompare")}</h2>
    <${Choice} name=${t("browserCompared")} value=${one.key} choose=${(compared) => set({ compared })} />
    <div class="scroll" tabindex="0" role="region" aria-label=${t("browserCompare")}><table>
      <thead><tr><th scope="col">${t("voice")}</th>${mean && html`<th scope="col" class="number">${t("browserLikeness")}</th>`}
        <th scope="col" class="number">${t("browserCosine")}</th></tr></thead>
      <tbody>${rows.map(({ other, raw, centred }) => html`<tr key=${other.key}><th scope="row">${other.name}</th>
        ${mean && html`<td class="number">${centred.toFixed(3)}</td>`}<td class="number">${raw.toFixed(3)}</td></tr>`)}</tbody>
    </table></div>
    <p class="about">${mean ? t("browserLikenessHelp", { n: state.about.space.count }) : t("browserFew", { n: state.about.fewest, have: state.voices.length })}</p>
  </section>`;
};

const mixed = () => {
  const [one, two] = state.blended.map(find);
  const parts = [[one, 1 - state.share], [two, state.share]];
  const written = parts.map(([{ name }, weight]) => `${Number(weight.toFixed(2))}*"${name.replace(/[\\"]/g, "\\$&")}"`).join(" + ");
  const parents = parts.map(([{ name, fingerprint, source_model, consent, license }, weight]) =>
    Object.fromEntries(Object.entries({ name, weight: Number(weight.toFixed(6)), fingerprint, source_model, consent, license }).filter(([, x]) => x)));
  return {
    name: t("browserBlendName", { one: one.name, two: two.name }),
    vector: blend(parts.map(([{ vector }, weight]) => [vector, weight])),
    source_model: one.source_model === two.source_model ? one.source_model : null,
    ...inherited([one, two]),
    recipe: { expression: written, keep: "none", parents, directions: [] },
  };
};

const Blend = () => {
  const [one, two] = state.blended.map(find);
  const put = (at) => (key) => set({ blended: state.blended.with(at, key) });
  const made = mixed();
  return html`<section>
    <h2>${t("blend")}</h2>
    <div class="row"><${Choice} name=${t("browserFirst")} value=${one.key} choose=${put(0)} />
      <${Choice} name=${t("browserSecond")} value=${two.key} choose=${put(1)} /></div>
    <div class="slider">
      <label for="share">${t("blend")}</label>
      <input id="share" type="range" min="0" max="1" step="0.05" value=${state.share} onInput=${(event) => set({ share: Number(event.target.value) })}
        aria-valuetext=${t("share", { x: Math.round(100 * state.share), name: two.name })} />
      <output for="share">${Math.round(100 * state.share)} %</output>
    </div>
    <p class="about">${t("browserBlendFacts", { one: one.name, two: two.name, x: Math.round(100 - 100 * state.share),
      y: Math.round(100 * state.share), norm: norm(made.vector).toFixed(2) })}</p>
    <div class="row small"><span class="about">${t("browserSave")}</span><${Downloads} voice=${made} /></div>
    <p class="about">${t("browserUse")}</p>
  </section>`;
};

const Missing = ({ what }) => html`<section><h2>${t("browserMissing")}</h2>
  ${what.map((one) => html`<p>${t(`browser-${one}`, { model: state.about.model })}</p>`)}</section>`;

const Page = () => html`
  <header>
    <h1>${t("browserTitle")} <small>${state.about?.model}</small></h1>
    <nav>${state.about?.studio && html`<a href="/">${t("browserStudio")}</a>`}
      <select aria-label=${t("pageLanguage")} onChange=${(event) => choose(event.target.value)}>
        ${Object.entries(LANGUAGES).map(([code, name]) => html`<option value=${code} selected=${code === language}>${name}</option>`)}
      </select></nav>
  </header>
  <p class="private">${t("browserPrivate")}</p>
  <p class="status" role="status">${state.status}</p>
  <main>
    ${state.about?.missing.length > 0 && html`<${Missing} what=${state.about.missing} />`}
    ${state.about?.missing.length === 0 && html`<div class="column"><${Recordings} /></div>`}
    ${find(state.compared) && html`<div class="column"><${Compare} /><${Blend} /></div>`}
  </main>`;

await loadWords("browser-");
document.title = t("browserTitle");
set({ status: t("browserLoading") });
try {
  const answer = await fetch(new URL("../browser/about.json", import.meta.url));
  const about = await answer.json();
  if (!answer.ok) throw new Error(about.error?.message ?? answer.statusText);
  const voices = (about.voices ?? []).map((voice, i) => ({ ...voice, key: `voice-${i}`, vector: decoded(voice.vector) }));
  const keys = voices.map(({ key }) => key);
  const mean = about.space && decoded(about.space.mean);
  set({ about, voices, mean, compared: keys[0] ?? null, blended: [keys[0] ?? null, keys[1] ?? keys[0] ?? null] });
  if (about.missing.length) set({ status: "" });
  else {
    await load();
    set({ ready: true, status: t("browserReady") });
  }
} catch (error) {
  set({ status: t("browserFailed", { why: error.message }) });
}
