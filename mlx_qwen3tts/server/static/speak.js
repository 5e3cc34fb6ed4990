// What to say, who says it, and how.

import { html } from "./htm.js";
import { choose, voices } from "./expression.js";
import { Menu } from "./menu.js";
import { halt, set, speak, state } from "./store.js";
import { language, t } from "./words.js";

const CODES = {
  chinese: "zh", english: "en", french: "fr", german: "de", italian: "it", japanese: "ja", korean: "ko", portuguese: "pt", russian: "ru", spanish: "es",
};
const names = new Intl.DisplayNames(language, { type: "language" });
const called = (one) => (CODES[one.toLowerCase()] ? names.of(CODES[one.toLowerCase()]) : one);

const field = (name) => (event) => set({ [name]: event.target.value });

export const Speak = () => {
  const chosen = voices();
  const name = (chosen.length === 1 && chosen[0].name) || "";
  return html`<section aria-label=${t("speak")}>
    <form onSubmit=${(event) => (event.preventDefault(), speak())}>
      <label>${t("text")}<textarea rows="4" required value=${state.text} onInput=${field("text")}></textarea></label>
      ${state.voices.length > 0 &&
      html`<label>${t("voice")}<${Menu} chosen=${name} head=${name ? [] : [["", t("blendOf", { n: chosen.length })]]}
        pick=${(to) => to && choose(to)} /></label>`}
      <label>${t("language")}<select onChange=${field("language")}>
        <option value="">${t("automatic")}</option>
        ${(state.model?.languages ?? []).filter((one) => one !== "auto").map((one) => html`<option value=${one} selected=${one === state.language}>${called(one)}</option>`)}
      </select></label>
      ${state.model?.takes_instruct &&
      html`<label>${t("instruction")}<input value=${state.instructions} maxlength="500" onInput=${field("instructions")} /></label>`}
      <div class="row">
        <label>${t("seed")}<input inputmode="numeric" value=${state.seed} onInput=${field("seed")} /></label>
        <label class="check"><input type="checkbox" checked=${state.keepSeed}
          onChange=${(event) => set({ keepSeed: event.target.checked })} />${t("keepSeed")}</label>
      </div>
      <details><summary>${t("more")}</summary><div class="row">
        <label>${t("temperature")}<input type="number" min="0" max="2" step="0.05" placeholder=${t("usual")}
          value=${state.temperature} onInput=${field("temperature")} /></label>
        <label>${t("speed")}<input type="number" min="0.5" max="2" step="0.05" placeholder="1"
          value=${state.speed} onInput=${field("speed")} /></label>
      </div></details>
      <div class="row">
        <button type="submit" class="main" disabled=${!state.model || state.error !== null}>${t("speak")}</button>
        <button type="button" disabled=${!state.speaking && state.playing === null} onClick=${halt}>${t("stop")}</button>
      </div>
    </form>
  </section>`;
};
