// The voices of the server, with what is known of them.

import { html } from "./htm.js";
import { quoted, read } from "./expression.js";
import { remove } from "./server.js";
import { loadVoices, set, state, told } from "./store.js";
import { t } from "./words.js";

const forget = async ({ name }) => {
  if (!window.confirm(t("sure", { name }))) return;
  try {
    await remove(`/v1/audio/voices/${encodeURIComponent(name)}`);
    await loadVoices();
    set({ status: t("deleted", { name }) });
    if (state.voices.length) await read(state.expression);
  } catch (error) {
    told(error);
  }
};

const Entry = ({ voice }) => {
  const tags = Object.entries(voice.attributes).map(([key, value]) => (value === true ? key : `${key} ${value}`));
  const consent = voice.consent ? t(`known-${voice.consent}`) : t("known-unknown");
  const about = [consent, voice.license ?? t("noLicence"), voice.recipe && t("made", { from: voice.recipe.expression })];
  return html`<li>
    <p class="said">${voice.name} ${tags.map((tag) => html`<span class="tag">${tag}</span> `)}</p>
    <p class="about">${about.filter(Boolean).join(" · ")}</p>
    <div class="row small">
      <button aria-label=${t("useNamed", voice)} disabled=${voice.consent === "refused"} onClick=${() => read(quoted(voice.name))}>${t("use")}</button>
      ${!voice.preset && html`<button aria-label=${t("deleteNamed", voice)} onClick=${() => forget(voice)}>${t("delete")}</button>`}
    </div>
  </li>`;
};

export const Library = () => html`<section>
  <h2>${t("library")}</h2>
  <ul aria-label=${t("library")} class="cards shelf">${state.voices.map((voice) => html`<${Entry} key=${voice.name} voice=${voice} />`)}</ul>
</section>`;
