// The studio: what is on the page, and in which order.

import { html, render, useEffect, useState } from "./htm.js";
import { LANGUAGES, choose, language, loadWords, t } from "./words.js";
import { begin, state, watch } from "./store.js";
import { Compare } from "./compare.js";
import { Fit } from "./fit.js";
import { Library } from "./library.js";
import { Atlas, mapped } from "./map.js";
import { Record } from "./record.js";
import { Script } from "./scripts.js";
import { Shape } from "./shape.js";
import { Speak } from "./speak.js";
import { Takes } from "./takes.js";
import { watchServer } from "./lifeline.js";

const Page = () => {
  const [, again] = useState(0);
  useEffect(() => watch(() => again((n) => n + 1)), []);
  return html`
    <header>
      <h1>mlx_qwen3tts <small>${state.model?.id}</small></h1>
      <select aria-label=${t("pageLanguage")} onChange=${(event) => choose(event.target.value)}>
        ${Object.entries(LANGUAGES).map(([code, name]) => html`<option value=${code} selected=${code === language}>${name}</option>`)}
      </select>
    </header>
    <p class=${state.away ? "status wrong" : "status"} role="status">${state.away ? t(state.away) : state.status}</p>
    <main>
      <div class="column"><${Speak} />${state.voices.length > 0 && html`<${Shape} /><${Fit} />`}</div>
      <div class="column"><${Takes} /><${Compare} />${state.model && state.model.type !== "voice_design" && html`<${Record} />`}<${Library} /></div>
      ${state.voices.length > 0 && html`<${Script} />`}
      ${mapped() && html`<${Atlas} />`}
    </main>
    ${state.model?.type === "base" && html`<footer><a href="/browser">${t("browserLink")}</a></footer>`}`;
};

await loadWords();
render(html`<${Page} />`, document.getElementById("page"));
await begin();
await watchServer();
