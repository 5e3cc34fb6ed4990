"use strict";
const $ = id => document.getElementById(id);
const { x, y, names, groups, details, kinds, legend, rest, colours, labelled, axes, equal } =
  JSON.parse($("data").textContent);
const count = names.length, all = [...names.keys()], plot = $("plot"), canvas = $("map"), tip = $("tip");
const pen = canvas.getContext("2d");
const LEFT = 60, BOTTOM = 44, EDGE = 28;
// Corners within [-1, 1]; the first is a circle.
const SHAPES = ["", "-.85 -.85 .85 -.85 .85 .85 -.85 .85", "0 -1 1 .8 -1 .8", "0 -1.15 1.15 0 0 1.15 -1.15 0",
  "0 1 1 -.8 -1 -.8", "-.4 -1 .4 -1 .4 -.4 1 -.4 1 .4 .4 .4 .4 1 -.4 1 -.4 .4 -1 .4 -1 -.4 -.4 -.4",
  "-.55 -1.05 0 -.5 .55 -1.05 1.05 -.55 .5 0 1.05 .55 .55 1.05 0 .5 -.55 1.05 -1.05 .55 -.5 0 -1.05 -.55",
  "-1 0 .8 -1 .8 1"].map(text => text.split(" "));
const dark = matchMedia("(prefers-color-scheme: dark)"), off = new Set(), fingers = new Map();
let width = 0, height = 0, scale = [1, 1], middle = [0, 0], zoomed = 1, chosen = -1, found = null, waiting = false;
let dragged = 0;

const bounds = v => v.reduce(([low, high], t) => [Math.min(low, t), Math.max(high, t)], [Infinity, -Infinity]);
const boxes = [bounds(x), bounds(y)];
const toX = i => LEFT + (width - LEFT) / 2 + (x[i] - middle[0]) * scale[0];
const toY = i => (height - BOTTOM) / 2 - (y[i] - middle[1]) * scale[1];
const visible = i => !off.has(kinds[i]);
const ink = name => getComputedStyle(document.documentElement).getPropertyValue(name);

function fit() {
  const spans = boxes.map(([low, high]) => high - low), widest = Math.max(...spans) || 1;
  const room = [width - LEFT, height - BOTTOM].map(length => Math.max(length - 2 * EDGE, 1));
  scale = spans.map((span, k) => room[k] / (span || widest));
  if (equal) scale = [0, 0].fill(Math.min(...scale));
  middle = boxes.map(([low, high]) => (low + high) / 2);
  zoomed = 1;
}

function zoom(factor, at = [LEFT + (width - LEFT) / 2, (height - BOTTOM) / 2]) {
  factor = Math.min(Math.max(factor, 0.3 / zoomed), 5000 / zoomed);
  const away = [at[0] - LEFT - (width - LEFT) / 2, (height - BOTTOM) / 2 - at[1]];
  middle = middle.map((m, k) => m + away[k] / scale[k] * (1 - 1 / factor));
  scale = scale.map(s => s * factor);
  zoomed *= factor;
  later();
}

function pan(dx, dy) {
  middle = [middle[0] - dx / scale[0], middle[1] + dy / scale[1]];
  later();
}

function later() {
  if (!waiting) requestAnimationFrame(() => { waiting = false; draw(); });
  waiting = true;
}

function colour(kind) {
  const code = kind === rest ? colours[colours.length - 1] : colours[kind];
  if (!dark.matches) return code;
  const mixed = [1, 3, 5].map(k => Math.round(parseInt(code.slice(k, k + 2), 16) * 0.8 + 51));
  return `rgb(${mixed})`;
}

function mark(pen, px, py, r, kind) {
  const corners = SHAPES[kind === rest ? 0 : kind];
  pen.beginPath();
  if (corners.length < 2) pen.arc(px, py, kind === rest ? 0.75 * r : r, 0, 7);
  for (let k = 0; k + 1 < corners.length; k += 2) pen.lineTo(px + r * corners[k], py + r * corners[k + 1]);
  pen.closePath();
  pen.fill();
  pen.stroke();
}

function grid(k) {
  const length = k ? height - BOTTOM : width - LEFT, half = length / 2 / scale[k], low = middle[k] - half;
  const soft = ink("--soft"), line = ink("--line"), raw = 2 * half * 90 / length;
  const power = 10 ** Math.floor(Math.log10(raw)), step = power * ([1, 2, 5].find(n => n * power >= raw) || 10);
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  for (let n = Math.ceil(low / step); n * step <= middle[k] + half; n++) {
    const at = (n * step - low) * scale[k], text = (n * step).toFixed(digits).replace(/^-/, "\u2212");
    pen.textAlign = k ? "right" : "center";
    pen.fillStyle = line;
    k ? pen.fillRect(LEFT, length - at, width, 1) : pen.fillRect(LEFT + at, 0, 1, height - BOTTOM);
    pen.fillStyle = soft;
    if (k && at > length - 8) continue;
    k ? pen.fillText(text, LEFT - 6, length - at + 4) : pen.fillText(text, LEFT + at, height - BOTTOM + 16);
  }
}

function draw() {
  const ratio = devicePixelRatio || 1, shades = colours.map((_, kind) => colour(kind)), seen = [];
  const r = Math.min(Math.max(60 / Math.sqrt(count), 2.2) * Math.max(1, zoomed) ** 0.3, 6);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "12px system-ui, sans-serif";
  [0, 1].forEach(grid);
  pen.textAlign = "center";
  pen.fillText(axes[0], LEFT + (width - LEFT) / 2, height - 8);
  pen.save();
  pen.rotate(-Math.PI / 2);
  pen.fillText(axes[1], (BOTTOM - height) / 2, 12);
  pen.restore();
  pen.save();
  pen.beginPath();
  pen.rect(LEFT, 0, width - LEFT, height - BOTTOM);
  pen.clip();
  pen.strokeStyle = ink("--edge");
  pen.lineWidth = r / 10;
  const faint = i => found !== null && !found.has(i);
  for (const below of [true, false]) for (let i = 0; i < count; i++) {
    const px = toX(i), py = toY(i);
    if (!visible(i) || (faint(i) || kinds[i] === rest) !== below) continue;
    if (px < LEFT - r || px > width + r || py < -r || py > height - BOTTOM + r) continue;
    pen.globalAlpha = faint(i) ? 0.15 : 1;
    pen.fillStyle = shades[kinds[i]];
    mark(pen, px, py, r, kinds[i]);
    if (!faint(i)) seen.push([i, px, py]);
  }
  pen.globalAlpha = 1;
  pen.fillStyle = pen.strokeStyle = ink("--ink");
  if (seen.length <= labelled) label(seen, r);
  if (chosen >= 0) {
    const px = toX(chosen), py = toY(chosen), w = tip.offsetWidth, h = tip.offsetHeight;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(px, py, r + 4, 0, 7);
    pen.stroke();
    const left = px + 14 + w > width ? px - 14 - w : px + 14, top = Math.min(py + 10, height - h - 4);
    tip.style.transform = `translate(${Math.max(left, 2)}px, ${Math.max(top, 2)}px)`;
  }
  pen.restore();
}

function label(seen, r) {
  const taken = seen.map(([, px, py]) => [px - r, py - r, px + r, py + r]);
  pen.textAlign = "left";
  for (const [i, px, py] of seen) {
    const text = names[i].slice(0, 40), w = pen.measureText(text).width;
    const sides = [[px + r + 3, py - 7], [px - r - 3 - w, py - 7], [px - w / 2, py - r - 15], [px - w / 2, py + r + 2]];
    const free = box => box[0] > LEFT && box[2] < width
      && !taken.some(t => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3]);
    const box = sides.map(([left, top]) => [left, top, left + w, top + 13]).find(free);
    if (!box) continue;
    taken.push(box);
    pen.fillText(text, box[0], box[1] + 11);
  }
}

function show(i) {
  const lines = i < 0 ? [] : Object.entries(details[i] || {}).map(([key, value]) => `${key}: ${value}`);
  if (groups[i] && !Object.values(details[i] || {}).includes(groups[i])) lines.unshift(groups[i]);
  const same = i < 0 ? [] : all.filter(j => j !== i && visible(j) && x[j] === x[i] && y[j] === y[i]);
  const more = same.length > 5 ? `, and ${same.length - 5} more` : "";
  if (same.length) lines.push(`also here: ${same.slice(0, 5).map(j => names[j]).join(", ")}${more}`);
  tip.replaceChildren(...[names[i], ...lines].slice(i < 0 ? 1 : 0).map((text, k) => {
    const line = document.createElement(k ? "div" : "b");
    line.textContent = text;
    return line;
  }));
  chosen = i;
  later();
}

function visit(i) {
  if (i === undefined) return;
  const px = toX(i), py = toY(i);
  if (px < LEFT || px > width || py < 0 || py > height - BOTTOM) middle = [x[i], y[i]];
  show(i);
}

// The voice for which a distance, given its place in pixels, is least; undefined where it is nowhere finite.
function least(distance) {
  let best, low = Infinity;
  for (const i of all) {
    const far = visible(i) ? distance(toX(i), toY(i)) : Infinity;
    if (far < low) [best, low] = [i, far];
  }
  return best;
}

const within = (at, reach) => least((px, py) => {
  const far = Math.hypot(px - at[0], py - at[1]);
  return far > reach ? Infinity : far;
}) ?? -1;

function step(dx, dy) {
  const px = chosen < 0 ? width / 2 : toX(chosen), py = chosen < 0 ? height / 2 : toY(chosen);
  visit(least((a, b) => {
    const along = (a - px) * dx + (b - py) * dy, across = Math.abs((a - px) * dy) + Math.abs((b - py) * dx);
    return chosen < 0 ? Math.hypot(a - px, b - py) : along > 0.01 ? along + 2 * across : Infinity;
  }));
}

// The next of some voices after the chosen one, or with -1 the one before it.
function turn(voices, way = 1) {
  const seen = voices.filter(visible), at = seen.indexOf(chosen);
  visit(seen[(at < 0 && way < 0 ? seen.length - 1 : at + way + seen.length) % seen.length]);
}

const keys = {
  ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0), ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1),
  PageDown: () => turn(all), PageUp: () => turn(all, -1), Escape: () => show(-1),
  "+": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: () => { fit(); later(); },
};
canvas.onkeydown = event => {
  if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  keys[event.key]();
};
canvas.onblur = () => show(-1);
$("in").onclick = keys["+"];
$("out").onclick = keys["-"];
$("all").onclick = keys[0];

const place = event => [event.offsetX, event.offsetY];
canvas.onpointerdown = event => {
  canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, place(event));
  dragged = 0;
};
canvas.onpointermove = event => {
  const from = fingers.get(event.pointerId), to = place(event);
  if (!from) {
    const i = within(to, 12);
    if (i !== chosen) show(i);
    return;
  }
  fingers.set(event.pointerId, to);
  dragged += Math.hypot(to[0] - from[0], to[1] - from[1]);
  const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
  const apart = at => Math.hypot(at[0] - other[0], at[1] - other[1]) || 1;
  if (other) zoom(apart(to) / apart(from), other);
  else if (dragged > 4) pan(to[0] - from[0], to[1] - from[1]);
};
canvas.onpointerup = canvas.onpointercancel = event => {
  fingers.delete(event.pointerId);
  if (event.type === "pointerup" && dragged <= 4) show(within(place(event), 20));
};
canvas.onpointerleave = event => { if (event.pointerType === "mouse" && !fingers.size) show(-1); };
canvas.addEventListener("wheel", event => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), place(event));
}, { passive: false });

const fold = text => text.normalize("NFKC").toLowerCase(), folded = names.map(fold);
$("find").oninput = () => {
  const text = fold($("find").value.trim());
  found = text ? new Set(all.filter(i => folded[i].includes(text))) : null;
  $("found").textContent = found ? `${found.size} of ${count} voices` : `${count} voice${count > 1 ? "s" : ""}`;
  later();
};
$("find").onkeydown = event => { if (event.key === "Enter" && found) turn([...found]); };
$("find").oninput();

const swatches = legend.map((name, kind) => {
  const [row, box, swatch, many] = ["label", "input", "canvas", "small"].map(tag => document.createElement(tag));
  Object.assign(box, { type: "checkbox", checked: true, onchange: () => {
    box.checked ? off.delete(kind) : off.add(kind);
    show(chosen >= 0 && visible(chosen) ? chosen : -1);
  } });
  Object.assign(swatch, { width: 32, height: 32 }).style.width = "16px";
  many.textContent = kinds.filter(k => k === kind).length;
  row.append(box, swatch, name, many);
  $("legend").append(row);
  return swatch.getContext("2d");
});
$("legend").hidden = !legend.length;

function restyle() {
  swatches.forEach((pen, kind) => {
    Object.assign(pen, { fillStyle: colour(kind), strokeStyle: ink("--edge"), lineWidth: 1 }).clearRect(0, 0, 32, 32);
    mark(pen, 16, 16, 11, kind);
  });
  later();
}
dark.onchange = restyle;
restyle();
new ResizeObserver(() => {
  const before = [width, height];
  [width, height] = [plot.clientWidth, plot.clientHeight];
  Object.assign(canvas, { width: width * devicePixelRatio, height: height * devicePixelRatio });
  if (zoomed === 1 || !before[0]) fit();
  draw();
}).observe(plot);
