// A voice of one's own: recorded here or dropped as a file, and kept only with a name and a statement of consent.

import { html } from "./htm.js";
import { quoted, read } from "./expression.js";
import { bySound } from "./library.js";
import { LEAST, MOST, decoded, faults, record } from "./microphone.js";
import { send } from "./server.js";
import { RATE, wav } from "./sound.js";
import { halt, hearSamples, loadVoices, set, state, told, toldOfName } from "./store.js";
import { t } from "./words.js";

let end = null; // of the recording that is being made

const begin = async () => {
  halt();
  set({ recording: { seconds: 0, level: 0, warnings: [] }, recorded: null });
  try {
    end = await record(({ seconds, level, warnings }) => {
      if (!state.recording) return;
      set({ recording: { seconds, level, warnings } });
      if (seconds >= MOST) finish();
    });
  } catch (error) {
    set({ recording: null });
    told(error);
  }
};

const finish = async () => {
  const stop = end;
  end = null;
  if (!stop) return;
  const samples = await stop();
  set({ recording: null, recorded: { samples, file: wav(samples), faults: faults(samples) } });
};

const take = async (file) => {
  if (!file) return;
  halt();
  const recorded = { file, name: file.name, faults: [] };
  set({ recorded });
  const samples = await decoded(file);
  if (state.recorded !== recorded) return;
  set({ recorded: samples ? { ...recorded, samples, faults: faults(samples) } : { ...recorded, faults: [{ key: "mic-unread" }] } });
};

const drop = (event) => {
  event.preventDefault();
  take(event.dataTransfer.files[0]);
};

const keep = async (event) => {
  event.preventDefault();
  const name = state.newName.trim();
  try {
    const { name: kept } = await send("/v1/audio/voices", { name, consent: state.consent, audio_sample: state.recorded.file });
    set({ recorded: null, newName: "", consent: "", status: t("kept", { name: kept }) });
    await loadVoices();
    await read(quoted(kept));
  } catch (error) {
    toldOfName(error);
  }
};

const Meter = ({ seconds, level, warnings }) => html`<div class="meter">
  <meter aria-label=${t("level")} min="0" max="1" low="0.02" high="0.98" optimum="0.5" value=${level}></meter>
  <progress aria-label=${t("length")} max=${MOST} value=${seconds}></progress>
  <span>${seconds.toFixed(0)} s${seconds < LEAST ? ` · ${t("atLeast", { x: LEAST })}` : ""}</span>
</div>
<div role="alert">${warnings.map((key) => html`<p class="wrong">${t(key)}</p>`)}</div>`;

const Recorded = ({ recorded }) => html`<form onSubmit=${keep}>
  <div class="row small"><span>${recorded.name ?? t("recorded", { x: (recorded.samples.length / RATE).toFixed(1) })}
      ${recorded.name && recorded.samples && ` · ${(recorded.samples.length / RATE).toFixed(1)} s`}</span>
    ${recorded.samples && html`<button type="button" onClick=${() => hearSamples(recorded.samples)}>${t("play")}</button>`}
    ${state.voices.length > 0 && html`<button type="button" onClick=${() => bySound(recorded.file)}>${t("mic-find")}</button>`}
    <button type="button" onClick=${() => set({ recorded: null })}>${t("discard")}</button></div>
  ${recorded.faults.map(({ key, x }) => html`<p class="wrong" role="alert">${t(key, { x })}</p>`)}
  <label>${t("name")}<input required maxlength="64" value=${state.newName} onInput=${(event) => set({ newName: event.target.value })} /></label>
  <fieldset><legend>${t("consent")}</legend>
    ${["given", "not-needed", "refused"].map((word) => html`<label class="check"><input type="radio" name="consent" required
      checked=${state.consent === word} onChange=${() => set({ consent: word })} />${t(`consent-${word}`)}</label>`)}
  </fieldset>
  <div class="row"><button type="submit" class="main"
    disabled=${!state.newName.trim() || !state.consent || recorded.faults.some(({ forbids }) => forbids)}>${t("keepVoice")}</button></div>
</form>`;

export const Record = () => html`<section onDragOver=${(event) => event.preventDefault()} onDrop=${drop}>
  <h2>${t("recordTitle")}</h2>
  <p class="about">${t("recordHelp", { least: LEAST, most: MOST })}</p>
  <div class="row">
    <button onClick=${state.recording ? finish : begin}>${state.recording ? t("finish") : t("record")}</button>
    <label class="file">${t("file")}<input type="file" accept="audio/*" onChange=${(event) => take(event.target.files[0])} /></label>
  </div>
  ${state.recording && html`<${Meter} ...${state.recording} />`}
  ${state.recorded && html`<${Recorded} recorded=${state.recorded} />`}
</section>`;
