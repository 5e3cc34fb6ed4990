// Three and four voices on a surface: views of the expression's weights. A handle is moved by pointer or arrow keys.

import { html, useRef } from "./htm.js";
import { add, blended, mix, replaced } from "./expression.js";
import { Menu } from "./menu.js";
import { state } from "./store.js";
import { t } from "./words.js";

const SIZE = 100;
const STEP = 0.05;
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const clamp = (x) => Math.min(1, Math.max(0, x));
const HEIGHT = Math.sqrt(3) / 2;

// Each surface: its corners, where weights are shown, and the weights of a place. Places are in the unit square.
const triangle = {
  corners: [[0.5, 0], [0, HEIGHT], [1, HEIGHT]],
  place: (w) => [0.5 * w[0] + w[2], HEIGHT * (w[1] + w[2])],
  weights: ([x, y]) => {
    // Barycentric; outside, what is negative becomes nothing and the others share.
    const top = Math.max(0, 1 - y / HEIGHT);
    const inside = [top, Math.max(0, 1 - x - top / 2), Math.max(0, x - top / 2)];
    const sum = inside.reduce((a, b) => a + b);
    return inside.map((one) => one / sum);
  },
};
const square = {
  corners: [[0, 0], [1, 0], [0, 1], [1, 1]],
  place: (w) => [w[1] + w[3], w[2] + w[3]],
  weights: ([x, y]) => [(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y],
};

const said = (voices, weights) =>
  voices.map(({ factor }, i) => t("share", { x: Math.round(100 * weights[i]), name: factor })).join(t("comma"));

// Which voice a corner has; an empty choice takes it away.
const Corner = ({ voice, i }) => html`<${Menu} class=${`corner corner-${i + 1}`} aria-label=${t("corner", { i: i + 1 })}
  disabled=${state.error !== null} chosen=${voice.name ?? voice.factor} head=${voice.name ? [] : [[voice.factor, voice.factor]]}
  tail=${[["", t("takeOut")]]} pick=${(name) => replaced(i, name)} />`;

const Surface = ({ shape, name, voices, weights }) => {
  const drawing = useRef(null);
  const [x, y] = shape.place(weights);
  const wrong = state.error !== null;
  const to = (place) => mix(shape.weights(place.map(clamp)));
  const point = (event) => {
    if (wrong || (event.type === "pointermove" && !event.buttons)) return;
    if (event.type === "pointerdown") drawing.current.setPointerCapture(event.pointerId);
    const box = drawing.current.getBoundingClientRect();
    const part = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    to(part.map((one) => 1.2 * one - 0.1)); // there is a margin around the unit square
  };
  const press = (event) => {
    const way = KEYS[event.key];
    if (wrong || !(way || event.key === "Home")) return;
    event.preventDefault();
    if (event.key === "Home") return mix(voices.map(() => 1 / voices.length));
    to([x + STEP * way[0], y + STEP * way[1]]);
  };
  const drawn = ([a, b]) => `${a * SIZE},${b * SIZE}`;
  const outline = shape === square ? [0, 1, 3, 2] : [0, 1, 2];
  return html`<div class=${shape === triangle ? "pad three" : "pad"}>
    ${voices.map((voice, i) => html`<${Corner} key=${i} voice=${voice} i=${i} />`)}
    <svg ref=${drawing} viewBox="-10 -10 120 120" role="slider" tabindex=${wrong ? -1 : 0} aria-label=${name} aria-disabled=${wrong}
      aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round(100 * weights[0])} aria-valuetext=${said(voices, weights)}
      onPointerDown=${point} onPointerMove=${point} onKeyDown=${press}>
      <polygon points=${outline.map((i) => drawn(shape.corners[i])).join(" ")} />
      ${shape.corners.map(([a, b]) => html`<line x1=${a * SIZE} y1=${b * SIZE} x2=${x * SIZE} y2=${y * SIZE} />`)}
      <circle cx=${x * SIZE} cy=${y * SIZE} r="5" />
    </svg>
  </div>`;
};

// For three or four voices their surface, and for two or three a way to one more.
export const Pads = () => {
  const mixed = blended();
  if (!mixed || mixed.voices.length < 2) return null;
  const { voices, weights } = mixed;
  const without = voices.map(({ name }) => name);
  return html`
    ${voices.length === 3 && html`<${Surface} shape=${triangle} name=${t("triangle")} ...${mixed} />`}
    ${voices.length === 4 && html`<${Surface} shape=${square} name=${t("square")} ...${mixed} />`}
    ${voices.length > 2 && html`<p class="about">${said(voices, weights)}</p>`}
    ${voices.length < 4 && state.voices.length > voices.length && html`<label class="about another">${t("another")}<${Menu}
      disabled=${state.error !== null} chosen="" without=${without} head=${[["", t("nobody")]]} pick=${(name) => name && add(name)} /></label>`}`;
};
