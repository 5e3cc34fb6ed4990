// The voice that was shaped, kept in the library under a name or downloaded as a file.

import { quoted, read, voices } from "./expression.js";
import { html } from "./htm.js";
import { post } from "./server.js";
import { download } from "./sound.js";
import { loadVoices, set, state, told, toldOfName } from "./store.js";
import { t } from "./words.js";

const keep = async (event) => {
  event.preventDefault();
  const name = state.shapedName.trim();
  try {
    await post("/v1/audio/voices/combine", { expression: state.expression, name });
    set({ shapedName: "", status: t("kept", { name }) });
    await loadVoices();
    await read(quoted(name));
  } catch (error) {
    toldOfName(error);
  }
};

const save = async () => {
  try {
    const response = await post("/v1/audio/voices/combine", { expression: state.expression });
    const [one, ...more] = voices();
    download(await response.blob(), `${(!more.length && one?.name) || "voice"}.safetensors`);
  } catch (error) {
    told(error);
  }
};

export const Keep = () => {
  const wrong = state.error !== null || state.terms.length === 0;
  const made = state.terms.length > 1;
  return html`<form class="keep" onSubmit=${keep}>
    <div class="row">
      <label>${t("keepName")}<input maxlength="64" value=${state.shapedName} disabled=${wrong || !made}
        onInput=${(event) => set({ shapedName: event.target.value })} /></label>
      <button type="submit" disabled=${wrong || !made || !state.shapedName.trim()}>${t("keepShaped")}</button>
      <button type="button" disabled=${wrong} onClick=${save}>${t("keepDownload")}</button>
    </div>
    <p class="about">${t(made ? "keepRights" : "keepNothing")}</p>
  </form>`;
};
