// Everything that was spoken here, newest first.

import { html } from "./htm.js";
import { post } from "./server.js";
import { download, wav } from "./sound.js";
import { again, forget, halt, hear, seconds, state, told, vary } from "./store.js";
import { t } from "./words.js";

const file = (take, kind) => `take-${take.id}.${kind}`;

// The server makes the same speech again as MP3: the same seed and settings give the same sound.
const mp3 = async (take) => {
  try {
    const response = await post("/v1/audio/speech", { ...take.settings, seed: take.seed, response_format: "mp3" });
    download(await response.blob(), file(take, "mp3"));
  } catch (error) {
    told(error);
  }
};

const Take = ({ take }) => {
  const { input, voice, language, instructions, temperature, speed, steering } = take.settings;
  const more = [language, instructions, temperature !== undefined && `${t("temperature")} ${temperature}`,
    speed !== undefined && `${t("speed")} ${speed}`,
    steering && t("steered", { to: steering.at(-1).voice }), !take.whole && t("cutShort")].filter(Boolean);
  const heard = state.playing === take.id;
  return html`<li>
    <p class="said">${input}</p>
    <p class="about">${t("takeNumber", { n: take.id })} · <code>${voice}</code> · ${t("seed")} ${take.seed} · ${seconds(take.samples).toFixed(1)} s${more.map((one) => ` · ${one}`)}</p>
    <div class="row small">
      <button onClick=${() => (heard ? halt() : hear(take))}>${heard ? t("pause") : t("play")}</button>
      <button onClick=${() => again(take)}>${t("again")}</button>
      <button onClick=${() => vary(take)}>${t("vary")}</button>
      <button onClick=${() => download(wav(take.samples), file(take, "wav"))}>WAV</button>
      ${take.whole && html`<button onClick=${() => mp3(take)}>MP3</button>`}
      <button onClick=${() => forget(take)}>${t("delete")}</button>
    </div>
  </li>`;
};

export const Takes = () => html`<section>
  <h2>${t("takes")}</h2>
  ${state.takes.length === 0 && html`<p class="about">${t("noTakes")}</p>`}
  <ul aria-label=${t("takes")} class="cards">${state.takes.map((take) => html`<${Take} key=${take.id} take=${take} />`)}</ul>
</section>`;
