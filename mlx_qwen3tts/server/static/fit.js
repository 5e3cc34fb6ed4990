// A direction of one's own: voices are labelled, what is learnt from them is told in plain words, and it is kept as a slider.

import { html, useState } from "./htm.js";
import { read } from "./expression.js";
import { post, remove } from "./server.js";
import { shown } from "./shape.js";
import { loadDirections, set, state, told as failed } from "./store.js";
import { t } from "./words.js";

const LEAST = 4; // voices
const FEW = 5; // voices on a side, with fewer the figures are an anecdote

const numeric = (text) => text.trim() !== "" && Number.isFinite(Number(text));

// What a report says, a sentence each.
const told = (direction) => {
  const { labels, negative, positive, n, failures, split_half: halves, per_radius: step } = direction;
  const numbers = step !== null;
  const few = numbers ? n < FEW : Math.min(labels[negative], labels[positive]) < FEW;
  return [
    numbers ? t("fitFromNumbers", { n, least: labels.least, most: labels.most })
      : t("fitFromClasses", { n, a: labels[negative], negative, b: labels[positive], positive }),
    `${shown(direction)}.`,
    t(direction.proven ? "fitProven" : "fitUnproven"),
    failures.length > 0 && t("fitFailures", { names: failures.join(", ") }),
    numbers && t("fitStep", { x: Number(step.toPrecision(3)) }),
    halves !== null && t("fitHalves", { x: halves.toFixed(2) }),
    few && t("fitFew"),
    t("fitGroups"),
  ].filter(Boolean);
};

const tags = (voices) => [...new Set(voices.flatMap((voice) => Object.keys(voice.attributes)))].sort();

const Report = ({ direction, keep }) => {
  const [name, setName] = useState("");
  const [taken, setTaken] = useState(null); // the name that is kept already
  const submit = async (event) => {
    event.preventDefault();
    const wanted = name.trim();
    setTaken((await keep(wanted, taken === wanted)) ? null : wanted);
  };
  return html`<div role="status"><ul class="report">${told(direction).map((line) => html`<li>${line}</li>`)}</ul></div>
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

export const Fit = () => {
  const [numbers, setNumbers] = useState(false);
  const [classes, setClasses] = useState([t("fitLow"), t("fitHigh")]);
  const [sides, setSides] = useState({}); // {voice: 0 or 1}
  const [values, setValues] = useState({}); // {voice: text}
  const [fitted, setFitted] = useState(null); // {direction, labels}
  const [error, setError] = useState(null);
  const voices = state.voices.filter((voice) => voice.consent !== "refused");

  const labels = () => {
    const made = {};
    for (const { name } of voices) {
      if (numbers && numeric(values[name] ?? "")) made[name] = Number(values[name]);
      if (!numbers && sides[name] !== undefined) made[name] = classes[sides[name]];
    }
    return made;
  };
  const labelled = labels();
  const count = Object.keys(labelled).length;
  const changed = (call) => {
    setFitted(null);
    setError(null);
    call();
  };

  const ask = async (body) => {
    setError(null);
    try {
      return await (await post("/v1/audio/directions", body)).json();
    } catch (refused) {
      setError(refused.message);
      return null;
    }
  };
  const body = () => (numbers ? { labels: labelled } : { labels: labelled, positive: classes[1] });
  const fit = async (event) => {
    event.preventDefault();
    const asked = body();
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
  const fill = (tag) => changed(() => {
    const found = voices.filter((voice) => voice.attributes[tag] !== undefined).map(({ name, attributes }) => [name, String(attributes[tag])]);
    const kinds = [...new Set(found.map(([, value]) => value))];
    const asNumbers = kinds.length > 2 && kinds.every(numeric);
    setNumbers(asNumbers);
    if (asNumbers) return setValues(Object.fromEntries(found));
    const two = kinds.sort().slice(0, 2);
    setClasses([two[0], two[1] ?? t("fitHigh")]);
    setSides(Object.fromEntries(found.filter(([, value]) => two.includes(value)).map(([name, value]) => [name, two.indexOf(value)])));
  });

  return html`<section><details>
    <summary><h2>${t("fitTitle")}</h2></summary>
    <p class="about">${t("fitHelp", { least: LEAST })}</p>
    <form onSubmit=${fit}>
      <fieldset><legend>${t("fitKind")}</legend>
        <label class="check"><input type="radio" name="kind" checked=${!numbers} onChange=${() => changed(() => setNumbers(false))} />${t("fitClasses")}</label>
        <label class="check"><input type="radio" name="kind" checked=${numbers} onChange=${() => changed(() => setNumbers(true))} />${t("fitNumber")}</label>
      </fieldset>
      ${!numbers && html`<div class="row">${[0, 1].map((i) => html`<label>${t(i ? "fitSecond" : "fitFirst")}<input maxlength="40" value=${classes[i]}
        onInput=${(event) => changed(() => setClasses(classes.map((one, k) => (k === i ? event.target.value : one))))} /></label>`)}</div>`}
      ${tags(voices).length > 0 && html`<label>${t("fitTag")}<select onChange=${(event) => event.target.value && fill(event.target.value)}>
        <option value="">–</option>${tags(voices).map((tag) => html`<option value=${tag}>${tag}</option>`)}
      </select></label>`}
      <ul class="labels" aria-label=${t("fitVoices")}>${voices.map(({ name }) => html`<li key=${name}><span>${name}</span>
        ${numbers
          ? html`<input inputmode="decimal" aria-label=${t("fitLabel", { name })} value=${values[name] ?? ""}
              onInput=${(event) => changed(() => setValues({ ...values, [name]: event.target.value }))} />`
          : html`<select aria-label=${t("fitLabel", { name })} onChange=${(event) => changed(() =>
              setSides({ ...sides, [name]: event.target.value === "" ? undefined : Number(event.target.value) }))}>
              <option value="" selected=${sides[name] === undefined}>–</option>
              ${classes.map((one, i) => html`<option value=${i} selected=${sides[name] === i}>${one}</option>`)}
            </select>`}</li>`)}</ul>
      <div class="row"><button type="submit" class="main" disabled=${count < LEAST}>${t("fit")}</button>
        <span class="about">${t("fitCount", { n: count })}</span></div>
    </form>
    ${error && html`<p class="wrong" role="alert">${error}</p>`}
    ${fitted && html`<${Report} direction=${fitted.direction} keep=${keep} />`}
    <${Own} />
  </details></section>`;
};
