// The voice as an expression, and the sliders that are views of it.

import { html } from "./htm.js";
import { blended, fade, fader, move, reset, second, strength, type } from "./expression.js";
import { Keep } from "./keep.js";
import { Menu } from "./menu.js";
import { Pads } from "./pads.js";
import { state } from "./store.js";
import { t } from "./words.js";

// What a direction was shown to do, in words.
export const shown = (direction) => {
  const { correlation, accuracy, right, scored, chance, n, first, groups } = direction;
  if (!direction.proven) return t(correlation === null && accuracy === null ? "unmeasured" : "guessing");
  if (correlation !== null) return t("heldOutCorrelation", { r: correlation.toFixed(2), n: scored });
  if (accuracy > chance) return t("heldOutRight", { right, scored, chance: Math.round(chance * n) });
  return t("heldOutFirst", { won: first[0], tried: first[1], chance: Math.round((first[1] * groups) / n) });
};

// The labels on its sides, where they are words.
const sides = ({ negative, positive, per_radius: step }) => (step !== null ? "" : `${t("fromTo", { from: negative, to: positive })}${t("semicolon")}`);

const number = (value) => (value > 0 ? "+" : "") + Number(value.toFixed(3));

const Slider = ({ direction }) => {
  const [least, most] = direction.range;
  const value = strength(direction);
  const id = `direction-${encodeURIComponent(direction.name)}`;
  const wrong = state.error !== null;
  const name = `@${direction.name}`;
  return html`<div class=${`slider${direction.proven ? "" : " unproven"}${value ? " moved" : ""}`} title=${direction.report}>
    <label for=${id}>${name}</label>
    <input id=${id} type="range" min=${least} max=${most} step=${(most - least) / 40} value=${value}
      disabled=${!direction.proven || wrong} aria-valuetext=${t("radii", { x: number(value) })}
      aria-describedby=${`${id}-report`} onInput=${(event) => move(direction, Number(Number(event.target.value).toFixed(3)))} />
    <span class="value"><output for=${id}>${number(value)}</output>${value !== 0 &&
      html`<button type="button" class="small" aria-label=${t("resetOne", { name })} title=${t("resetOne", { name })} disabled=${wrong}
        onClick=${() => move(direction, 0)}>×</button>`}</span>
    <p id=${`${id}-report`} class="about">${direction.proven && sides(direction)}${shown(direction)}${direction.proven &&
      t("semicolon") + t("range", { x: most })}</p>
  </div>`;
};

const Fader = () => {
  const both = fader();
  if (!both) return !blended() && html`<p class="about">${t("noFader")}</p>`;
  const wrong = state.error !== null;
  return html`<div class="slider">
    <label for="blend">${t("blend")}</label>
    <input id="blend" type="range" min="0" max="1" step="0.05" value=${both.t} disabled=${!both.other || wrong}
      aria-valuetext=${both.other ? t("share", { x: Math.round(100 * both.t), name: both.other.factor }) : t("noSecond")}
      onInput=${(event) => fade(Number(event.target.value))} />
    <output for="blend">${Math.round(100 * both.t)} %</output>
    <label class="about wide">${t("with")}<${Menu} aria-label=${t("secondVoice")} disabled=${wrong} pick=${second} without=${[both.one.name]}
      chosen=${both.other ? both.other.name ?? both.other.factor : ""}
      head=${[["", t("nobody")], ...(both.other && !both.other.name ? [[both.other.factor, both.other.factor]] : [])]} /></label>
  </div>`;
};

export const Shape = () => {
  const [message, ...pointer] = (state.error ?? "").split("\n");
  const changed = state.heard !== null && state.heard !== state.expression;
  return html`<section>
    <h2>${t("shape")} ${changed && html`<span class="tag">${t("unheard")}</span>`}</h2>
    <p class="about">${t(state.directions.length ? "shapeHelp" : "shapeBlend")}</p>
    <label>${t("expression")}<input spellcheck=${false} autocomplete="off" value=${state.expression}
      aria-invalid=${state.error !== null} aria-describedby="expression-error" onInput=${(event) => type(event.target.value)} /></label>
    <div id="expression-error" aria-live="polite">${state.error !== null &&
    html`<pre class="wrong">${pointer.join("\n")}</pre><p class="wrong">${message}</p>`}</div>
    <p class="about" role="status">${state.fixed && t("fixed")}</p>
    <${Fader} />
    <${Pads} />
    ${state.directions.map((direction) => html`<${Slider} key=${direction.name} direction=${direction} />`)}
    <div class="row"><button disabled=${state.error !== null || !state.terms.some((one) => one.kind === "direction")} onClick=${reset}>
      ${t("reset")}</button></div>
    <${Keep} />
  </section>`;
};
