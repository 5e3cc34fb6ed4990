// The voices of the server: found by name, sound, likeness or direction; what is known of them, which can be changed; and
// as a file, out and in.

import { audition } from "./audition.js";
import { quoted, read } from "./expression.js";
import { html, useMemo } from "./htm.js";
import { patch, post, remove, send } from "./server.js";
import { download } from "./sound.js";
import { loadVoices, set, state, told } from "./store.js";
import { t } from "./words.js";

const SHOWN = 40; // voices that are listed at first
const MOST = 1000; // that a search gives
const LIKE = "like"; // of the orders: by likeness to the expression
const own = {
  filter: "",
  order: "", // "" for names, LIKE, "sound", or a sign and a direction's factor
  scores: null, // by name, in that order
  label: "",
  chosen: new Set(), // names, to be exported
  edited: null, // {name, tags, license, consent}
  shown: SHOWN,
  replace: false,
};
const put = (values) => {
  Object.assign(own, values);
  set({});
};

const forget = async ({ name }) => {
  if (!window.confirm(t("sure", { name }))) return;
  try {
    await remove(`/v1/audio/voices/${encodeURIComponent(name)}`);
    own.chosen.delete(name);
    await loadVoices();
    set({ status: t("deleted", { name }) });
    if (state.voices.length) await read(state.expression);
  } catch (error) {
    told(error);
  }
};

// Orders the voices by what the server says of a question.
const ordered = async (order, label, ask) => {
  put({ order, label, scores: null });
  try {
    const found = await ask();
    if (own.order === order) put({ scores: new Map(found.map(({ name, score }) => [name, score])), shown: SHOWN });
  } catch (error) {
    put({ order: "", scores: null });
    told(error);
  }
};

const orderBy = (order) => {
  if (!order) return put({ order: "", scores: null });
  const ask = (body) => async () => (await post("/v1/audio/voices/search", { ...body, k: MOST })).json();
  if (order === LIKE) return like(state.expression);
  return ordered(order, order.slice(1), ask({ voice: order.slice(1), lowest: order[0] === "-" }));
};

const like = (voice) =>
  ordered(LIKE, t("lib-like", { name: voice }), async () => (await post("/v1/audio/voices/search", { voice, k: MOST })).json());

// By a recording, which is not kept.
export const bySound = (file) => {
  if (!file) return;
  ordered("sound", t("lib-sound", { name: file.name ?? t("recordTitle") }), () => send("/v1/audio/voices/search", { file, k: String(MOST) }));
};

const tagged = ({ attributes }) => Object.entries(attributes).map(([key, value]) => (value ? `${key} ${value}` : key));

const listed = () => {
  const word = own.filter.trim().toLowerCase();
  const found = state.voices.filter((voice) => `${voice.name} ${tagged(voice).join(" ")}`.toLowerCase().includes(word));
  if (!own.scores) return found;
  const cards = new Map(state.voices.map((voice) => [voice.name, voice]));
  const wanted = new Set(found);
  // A voice of a pack, PACK/NAME, has no card: it is found by searching alone.
  return [...own.scores.keys()].map((name) => cards.get(name) ?? { name, attributes: {}, preset: true, packed: name.includes("/") })
    .filter((voice) => wanted.has(voice) || (voice.packed && voice.name.toLowerCase().includes(word)));
};

const edit = ({ name, attributes, license, consent }) => {
  const tags = Object.entries(attributes).map(([key, value]) => (value ? `${key}=${value}` : key));
  put({ edited: { name, tags: tags.join(", "), license: license ?? "", consent: consent ?? "unknown" } });
};

const save = async (event) => {
  event.preventDefault();
  const { name, tags, license, consent } = own.edited;
  const before = state.voices.find((voice) => voice.name === name);
  const attributes = Object.fromEntries(Object.keys(before.attributes).map((key) => [key, null]));
  for (const part of tags.split(",")) {
    const [key, ...value] = part.split("=");
    if (key.trim()) attributes[key.trim()] = value.join("=").trim();
  }
  const values = { attributes, license: license.trim() || null };
  if (consent !== (before.consent ?? "unknown")) values.consent = consent;
  if (values.license === before.license) delete values.license;
  try {
    await patch(`/v1/audio/voices/${encodeURIComponent(name)}`, values);
    put({ edited: null });
    await loadVoices();
    set({ status: t("lib-saved", { name }) });
    await read(state.expression);
  } catch (error) {
    told(error);
  }
};

const exported = async (names) => {
  try {
    const response = await post("/v1/audio/voices/export", names ? { voices: names } : {});
    download(await response.blob(), "voices.zip");
  } catch (error) {
    told(error);
  }
};

const imported = async (file) => {
  if (!file) return;
  try {
    const { voices } = await send("/v1/audio/voices/import", { archive: file, overwrite: String(own.replace) });
    await loadVoices();
    set({ status: t("lib-imported", { n: voices.length }) });
  } catch (error) {
    told(error);
  }
};

const about = ({ consent, license }) => `${t(`known-${consent ?? "unknown"}`)} · ${!license || license === "unknown" ? t("noLicence") : license}`;

// What a blend is made of, and what that is made of.
const Parents = ({ recipe }) => html`<ul class="parents">
  ${(recipe.parents ?? []).map((parent) => html`<li>${parent.weight} × ${parent.name} <small class="about">${about(parent)}</small>
    ${parent.recipe && html`<${Parents} recipe=${parent.recipe} />`}</li>`)}
  ${(recipe.directions ?? []).map(({ name, strength, towards }) => html`<li>${strength} × @${name} <small class="about">${towards}</small></li>`)}
</ul>`;

const Edit = () => {
  const { tags, license, consent } = own.edited;
  const field = (key) => (event) => put({ edited: { ...own.edited, [key]: event.target.value } });
  return html`<form onSubmit=${save}>
    <label>${t("lib-tags")}<input value=${tags} placeholder="gender=female, warm" onInput=${field("tags")} /></label>
    <label>${t("lib-licence")}<input value=${license} placeholder="CC0-1.0" maxlength="200" onInput=${field("license")} /></label>
    <label>${t("consent")}<select onChange=${field("consent")}>
      ${["given", "not-needed", "unknown", "refused"].map((word) => html`<option value=${word} selected=${word === consent}>${t(`known-${word}`)}</option>`)}
    </select></label>
    <div class="row small"><button type="submit">${t("lib-save")}</button>
      <button type="button" onClick=${() => put({ edited: null })}>${t("discard")}</button></div>
  </form>`;
};

const pick = (name) => {
  if (!own.chosen.delete(name)) own.chosen.add(name);
  set({});
};

const Entry = ({ voice }) => {
  const { name, preset, recipe } = voice;
  const refused = voice.consent === "refused";
  return html`<li>
    <p class="said">${!preset && html`<input type="checkbox" aria-label=${t("lib-choose", { name })} checked=${own.chosen.has(name)} onChange=${() => pick(name)} />`}
      ${name} ${tagged(voice).map((tag) => html`<span class="tag">${tag}</span> `)}
      ${own.scores?.has(name) && html`<output class="score">${own.scores.get(name).toFixed(2)}</output>`}</p>
    <p class="about">${voice.packed ? t("lib-packed") : about(voice)}</p>
    ${recipe && html`<details class="about"><summary>${recipe.expression ? t("made", { from: recipe.expression }) : t("lib-recipe")}</summary>
      <${Parents} recipe=${recipe} /></details>`}
    <div class="row small">
      <button aria-label=${t("useNamed", voice)} disabled=${refused} onClick=${() => read(quoted(name))}>${t("use")}</button>
      <button aria-label=${t("map-hear", voice)} disabled=${refused} onClick=${() => audition(voice)}>${t("play")}</button>
      <button aria-label=${t("lib-similar", voice)} disabled=${refused} onClick=${() => like(quoted(name))}>${t("lib-alike")}</button>
      ${!preset && html`<button aria-label=${t("lib-edit", voice)} onClick=${() => edit(voice)}>${t("lib-change")}</button>
      <button aria-label=${t("deleteNamed", voice)} onClick=${() => forget(voice)}>${t("delete")}</button>`}
    </div>
    ${own.edited?.name === name && html`<${Edit} />`}
  </li>`;
};

const drop = (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file?.name.endsWith(".zip")) imported(file);
  else bySound(file);
};

const taken = (call) => (event) => {
  call(event.target.files[0]);
  event.target.value = "";
};

export const Library = () => {
  const found = useMemo(listed, [state.voices, own.filter, own.scores]);
  const some = state.voices.some(({ preset }) => !preset);
  const orders = state.directions.flatMap(({ factor }) => [[`+${factor}`, t("lib-highest", { factor })], [`-${factor}`, t("lib-lowest", { factor })]]);
  // Drawn again where something of it has changed, not with every step of a slider.
  const entries = useMemo(
    () => found.slice(0, own.shown).map((voice) => html`<${Entry} key=${voice.name} voice=${voice} />`),
    [found, own.shown, own.edited, own.chosen.size],
  );
  return html`<section onDragOver=${(event) => event.preventDefault()} onDrop=${drop}>
    <h2>${t("library")}</h2>
    <div class="row">
      <label>${t("lib-filter")}<input type="search" value=${own.filter} onInput=${(event) => put({ filter: event.target.value, shown: SHOWN })} /></label>
      <label>${t("lib-order")}<select onChange=${(event) => orderBy(event.target.value)}>
        <option value="" selected=${!own.order}>${t("lib-names")}</option>
        <option value=${LIKE} selected=${own.order === LIKE}>${t("lib-likeness")}</option>
        ${orders.map(([value, text]) => html`<option value=${value} selected=${value === own.order}>${text}</option>`)}
        ${own.order === "sound" && html`<option value="sound" selected>${own.label}</option>`}
      </select></label>
    </div>
    <label class="file">${t("lib-clip")}<input type="file" accept="audio/*" onChange=${taken(bySound)} /></label>
    <p class="about" role="status">${own.order && own.label ? `${own.label}: ` : ""}${t("lib-count", { n: found.length })}</p>
    <ul aria-label=${t("library")} class="cards shelf">${entries}</ul>
    ${found.length > own.shown && html`<button onClick=${() => put({ shown: own.shown + 5 * SHOWN })}>${t("lib-more", { n: found.length - own.shown })}</button>`}
    <div class="row small">
      <button disabled=${!some} onClick=${() => exported(null)}>${t("lib-export")}</button>
      <button disabled=${!own.chosen.size} onClick=${() => exported([...own.chosen])}>${t("lib-exportChosen", { n: own.chosen.size })}</button>
    </div>
    <label class="file">${t("lib-import")}<input type="file" accept=".zip,application/zip" onChange=${taken(imported)} /></label>
    <label class="check"><input type="checkbox" checked=${own.replace} onChange=${(event) => put({ replace: event.target.checked })} />${t("lib-replace")}</label>
  </section>`;
};
