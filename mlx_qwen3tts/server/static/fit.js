// A direction of one's own: voices are labelled, what is learnt from them is told in plain words, and it is kept as a slider.

import { html, useMemo, useState } from "./htm.js";
import { read } from "./expression.js";
import { post, remove } from "./server.js";
import { shown } from "./shape.js";
import { loadDirections, set, state, told as failed } from "./store.js";
import { t } from "./words.js";

const LEAST = 4; // voices
const FEW = 5; // people on a side, with fewer the figures are an anecdote

const numeric = (text) => text.trim() !== "" && Number.isFinite(Number(text));

// How many people there are among voices; one that is nobody's in particular is somebody of its own.
const people = (names, groups) => new Set(names.map((name) => (groups?.[name] ? `of ${groups[name]}` : `is ${name}`))).size;

// What a report says, a sentence each; asked: what was labelled.
const told = (direction, { labels: of, groups }) => {
  const { labels, negative, positive, n, scored, failures, split_half: halves, per_radius: step } = direction;
  const numbers = step !== null;
  const names = Object.keys(of);
  const sides = numbers ? [names] : [true, false].map((side) => names.filter((name) => (of[name] === positive) === side));
  return [
    numbers ? t("fitFromNumbers", { n, least: labels.least, most: labels.most })
      : t("fitFromClasses", { n, a: labels[negative], negative, b: labels[positive], positive }),
    groups && t("fitLeft", { n: direction.groups }),
    shown(direction) + t("fullStop"),
    scored < n && t("fitUntried", { n: n - scored }),
    t(direction.proven ? "fitProven" : "fitUnproven"),
    failures.length > 0 && t("fitFailures", { names: failures.join(t("comma")) }),
    numbers && t("fitStep", { x: Number(step.toPrecision(3)) }),
    halves !== null && t("fitHalves", { x: halves.toFixed(2) }),
    Math.min(...sides.map((side) => people(side, groups))) < FEW && t("fitFew"),
    !groups && t("fitGroups"),
  ].filter(Boolean);
};

const tags = (voices) => [...new Set(voices.flatMap((voice) => Object.keys(voice.attributes)))].sort();

const Report = ({ direction, asked, keep }) => {
  const [name, setName] = useState("");
  const [taken, setTaken] = useState(null); // the name that is kept already
  const submit = async (event) => {
    event.preventDefault();
    const wanted = name.trim();
    setTaken((await keep(wanted, taken === wanted)) ? null : wanted);
  };
  return html`<div role="status"><ul class="report">${told(direction, asked).map((line) => html`<li>${line}</li>`)}</ul></div>
    <form onSubmit=${submit}>
      <label>${t("fitName")}<input required maxlength="64" value=${name} onInput=${(event) => setName(event.target.value)} /></label>
      <div class="row"><button type="submit" class="main" disabled=${!name.trim()}>
        ${t(taken === name.trim() ? "fitReplace" : "fitKeep")}</button></div>
    </form>`;
};

const forget = async ({ name }) => {
  if (!window.confirm(t("fitSure", { name }))) return;
  try {
    await remove(`/v1/audio/directions/${encodeURIComponent(name)}`);
    await loadDirections();
    set({ status: t("deleted", { name: `@${name}` }) });
    await read(state.expression);
  } catch (error) {
    failed(error);
  }
};

// Those that were kept, to be deleted again.
const Own = () => {
  const own = state.directions.filter((direction) => direction.own);
  return own.length > 0 && html`<h3>${t("fitOwn")}</h3><ul class="labels" aria-label=${t("fitOwn")}>${own.map((direction) => html`
    <li key=${direction.name}><span>@${direction.name}</span><button type="button" aria-label=${t("deleteNamed", { name: `@${direction.name}` })}
      onClick=${() => forget(direction)}>${t("delete")}</button></li>`)}</ul>`;
};

// A voice with its label and, where that is asked for, whose it is. Drawn again only where something of it has changed.
const Row = ({ name, classes, side, value, whose, put }) => useMemo(() => html`<li><span>${name}</span>
  ${classes
    ? html`<select aria-label=${t("fitLabel", { name })} value=${side ?? ""} onChange=${(event) => put.side(name, event.target.value)}>
        <option value="">–</option>${classes.map((one, i) => html`<option value=${i}>${one}</option>`)}</select>`
    : html`<input inputmode="decimal" aria-label=${t("fitLabel", { name })} value=${value ?? ""}
        onInput=${(event) => put.value(name, event.target.value)} />`}
  ${whose !== null && html`<input aria-label=${t("fitPerson", { name })} placeholder=${t("fitWho")} maxlength="40" list="fit-people" value=${whose}
    onInput=${(event) => put.whose(name, event.target.value)} />`}</li>`, [name, classes, side, value, whose]);

const Tags = ({ tags, label, pick }) => tags.length > 0 && html`<label>${label}<select onChange=${(event) => event.target.value && pick(event.target.value)}>
  <option value="">–</option>${tags.map((tag) => html`<option value=${tag}>${tag}</option>`)}</select></label>`;

const Labelling = () => {
  const [numbers, setNumbers] = useState(false);
  const [classes, setClasses] = useState([t("fitLow"), t("fitHigh")]);
  const [sides, setSides] = useState({}); // {voice: "0" or "1"}
  const [values, setValues] = useState({}); // {voice: text}
  const [persons, setPersons] = useState(false); // whether it is said whose voices they are
  const [whose, setWhose] = useState({}); // {voice: a person}
  const [fitted, setFitted] = useState(null); // {direction, asked}
  const [error, setError] = useState(null);
  const voices = useMemo(() => state.voices.filter((voice) => voice.consent !== "refused"), [state.voices]);
  const tags = useMemo(() => [...new Set(voices.flatMap((voice) => Object.keys(voice.attributes)))].sort(), [voices]);

  const changed = (call) => {
    setFitted(null);
    setError(null);
    call();
  };
  const one = (set) => (name, to) => changed(() => set((all) => ({ ...all, [name]: to })));
  const put = { side: one(setSides), value: one(setValues), whose: one(setWhose) };

  const labels = {};
  const groups = {};
  for (const { name } of voices) {
    if (numbers && numeric(values[name] ?? "")) labels[name] = Number(values[name]);
    if (!numbers && sides[name]) labels[name] = classes[sides[name]];
    if (persons && name in labels && whose[name]?.trim()) groups[name] = whose[name].trim();
  }
  const count = Object.keys(labels).length;

  const ask = async (body) => {
    setError(null);
    try {
      return await (await post("/v1/audio/directions", body)).json();
    } catch (refused) {
      setError(refused.message);
      return null;
    }
  };
  const fit = async (event) => {
    event.preventDefault();
    const asked = { labels };
    if (!numbers) asked.positive = classes[1];
    if (Object.keys(groups).length) asked.groups = groups;
    const direction = await ask(asked);
    setFitted(direction && { direction, asked });
  };
  const keep = async (name, overwrite) => {
    const kept = await ask({ ...fitted.asked, name, overwrite });
    if (!kept) return false;
    await loadDirections();
    setFitted(null);
    set({ status: t("fitKept", { name }) });
    return true;
  };
  const tagged = (tag) => voices.filter(({ attributes }) => attributes[tag] !== undefined).map(({ name, attributes }) => [name, String(attributes[tag])]);
  const fill = (tag) => changed(() => {
    const found = tagged(tag);
    const kinds = [...new Set(found.map(([, value]) => value))];
    const asNumbers = kinds.length > 2 && kinds.every(numeric);
    setNumbers(asNumbers);
    if (asNumbers) return setValues(Object.fromEntries(found));
    const two = kinds.sort().slice(0, 2);
    setClasses([two[0], two[1] ?? t("fitHigh")]);
    setSides(Object.fromEntries(found.filter(([, value]) => two.includes(value)).map(([name, value]) => [name, String(two.indexOf(value))])));
  });

  return html`
    <form onSubmit=${fit}>
      <fieldset><legend>${t("fitKind")}</legend>
        ${["fitClasses", "fitNumber"].map((key, i) => html`<label class="check"><input type="radio" name="kind" checked=${numbers === (i > 0)}
          onChange=${() => changed(() => setNumbers(i > 0))} />${t(key)}</label>`)}
      </fieldset>
      ${!numbers && html`<div class="row">${[0, 1].map((i) => html`<label>${t(i ? "fitSecond" : "fitFirst")}<input maxlength="40" value=${classes[i]}
        onInput=${(event) => changed(() => setClasses(classes.map((word, k) => (k === i ? event.target.value : word))))} /></label>`)}</div>`}
      <${Tags} tags=${tags} label=${t("fitTag")} pick=${fill} />
      <label class="check"><input type="checkbox" checked=${persons} aria-describedby="fit-persons"
        onChange=${(event) => changed(() => setPersons(event.target.checked))} />${t("fitPersons")}</label>
      ${persons && html`<p class="about" id="fit-persons">${t("fitPersonsHelp")}</p>
        <${Tags} tags=${tags} label=${t("fitPersonTag")} pick=${(tag) => changed(() => setWhose(Object.fromEntries(tagged(tag))))} />
        <datalist id="fit-people">${[...new Set(Object.values(whose))].filter(Boolean).map((who) => html`<option value=${who} />`)}</datalist>`}
      <ul class=${persons ? "labels persons" : "labels"} aria-label=${t("fitVoices")}>${voices.map(({ name }) => html`<${Row} key=${name} name=${name}
        classes=${numbers ? null : classes} side=${sides[name]} value=${values[name]} whose=${persons ? whose[name] ?? "" : null} put=${put} />`)}</ul>
      <div class="row"><button type="submit" class="main" disabled=${count < LEAST}>${t("fit")}</button>
        <span class="about">${t("fitCount", { n: count })}</span></div>
    </form>
    ${error && html`<p class="wrong" role="alert">${error}</p>`}
    ${fitted && html`<${Report} direction=${fitted.direction} asked=${fitted.asked} keep=${keep} />`}`;
};

// What is folded away is not drawn: a library may have a thousand voices.
export const Fit = () => {
  const [open, setOpen] = useState(false);
  return html`<section><details onToggle=${(event) => setOpen((before) => before || event.target.open)}>
    <summary><h2>${t("fitTitle")}</h2></summary>
    ${open && html`<p class="about">${t("fitHelp", { least: LEAST })}</p>
      <${Labelling} />
      <${Own} />`}
  </details></section>`;
};
