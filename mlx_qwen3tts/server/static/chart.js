// A map drawn on a canvas: points, colours, what is under a finger, and where one looks at it from. It knows no voices but
// their names and places.

const NEAR = 14; // pixels within which a point is meant
const DOT = 5; // its radius
const LABELLED = 60; // points in view up to which all have their names
const CLOSEST = 60; // times the view of everything
export const GROUPS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d31", "#7f7f7f"];
const LOW = [59, 76, 192];
const HIGH = [200, 60, 20];

// The colour of a share from 0 (low) to 1.
export const shade = (share) => `rgb(${LOW.map((low, i) => Math.round(low + share * (HIGH[i] - low))).join()})`;

export class Chart {
  constructor(canvas) {
    this.canvas = canvas;
    this.points = []; // {name, x, y}
    this.colour = () => null; // of a name
    this.chosen = null;
    this.over = null; // the name under the pointer
    this.link = null; // {from: a name, x, y: pixels}
    this.view = { x: 0, y: 0, scale: 1 }; // what is in the middle, and pixels for one unit
    this.fitted = 1;
    this.due = false;
    this.times = []; // milliseconds that the last frames took
  }

  show(points) {
    this.points = points;
    this.fit();
  }

  // All points in view.
  fit() {
    const [xs, ys] = [this.points.map(({ x }) => x), this.points.map(({ y }) => y)];
    const ends = (values) => [Math.min(...values), Math.max(...values)];
    const [[left, right], [low, high]] = [ends(xs), ends(ys)];
    const { width, height } = this.size();
    const room = (pixels, span) => (span > 0 ? (pixels - 8 * DOT) / span : Infinity);
    const scale = Math.min(room(width, right - left), room(height, high - low));
    this.fitted = Number.isFinite(scale) && scale > 0 ? scale : 1;
    this.view = { x: (left + right) / 2, y: (low + high) / 2, scale: this.fitted };
    this.draw();
  }

  size() {
    return { width: this.canvas.clientWidth, height: this.canvas.clientHeight };
  }

  place({ x, y }) {
    const { width, height } = this.size();
    return [width / 2 + (x - this.view.x) * this.view.scale, height / 2 - (y - this.view.y) * this.view.scale];
  }

  // Moves the view by pixels.
  pan(right, down) {
    this.view.x -= right / this.view.scale;
    this.view.y += down / this.view.scale;
    this.draw();
  }

  // Nearer by a factor, with what is at a pixel kept there.
  zoom(factor, x = this.size().width / 2, y = this.size().height / 2) {
    const { width, height } = this.size();
    const before = this.view.scale;
    const scale = Math.max(this.fitted / 2, Math.min(this.fitted * CLOSEST, before * factor));
    this.view.x += (x - width / 2) * (1 / before - 1 / scale);
    this.view.y -= (y - height / 2) * (1 / before - 1 / scale);
    this.view.scale = scale;
    this.draw();
  }

  // The name nearest to a pixel, or null.
  at(x, y, near = NEAR) {
    let [best, found] = [near * near, null];
    for (const point of this.points) {
      const [px, py] = this.place(point);
      const far = (px - x) ** 2 + (py - y) ** 2;
      if (far < best) [best, found] = [far, point.name];
    }
    return found;
  }

  // Before the next frame, however often it is asked for.
  draw() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      const began = performance.now();
      this.paint();
      this.times.push(performance.now() - began);
      if (this.times.length > 200) this.times.shift();
    });
  }

  paint() {
    const { width, height } = this.size();
    const ratio = window.devicePixelRatio || 1;
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== wide || this.canvas.height !== high) Object.assign(this.canvas, { width: wide, height: high });
    const style = getComputedStyle(this.canvas);
    const [ink, quiet, main] = ["--ink", "--quiet", "--main"].map((name) => style.getPropertyValue(name));
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const seen = this.points.map((point) => [point, ...this.place(point)]).filter(([, x, y]) => x > -DOT && y > -DOT && x < width + DOT && y < height + DOT);
    for (const [{ name }, x, y] of seen) {
      pen.beginPath();
      pen.arc(x, y, DOT, 0, 2 * Math.PI);
      pen.fillStyle = this.colour(name) ?? quiet;
      pen.fill();
    }
    pen.strokeStyle = pen.fillStyle = main;
    pen.lineWidth = 2;
    for (const [{ name }, x, y] of seen) {
      if (name !== this.chosen && name !== this.over) continue;
      pen.beginPath();
      pen.arc(x, y, DOT + 3, 0, 2 * Math.PI);
      pen.stroke();
    }
    if (this.link) {
      const from = this.points.find(({ name }) => name === this.link.from);
      pen.beginPath();
      pen.moveTo(...this.place(from));
      pen.lineTo(this.link.x, this.link.y);
      pen.stroke();
    }
    pen.font = `12px ${style.fontFamily}`;
    pen.fillStyle = ink;
    const taken = []; // [left, right, y] of the names written
    const marked = ({ name }) => name === this.chosen || name === this.over;
    const named = seen.filter(([point]) => seen.length <= LABELLED || marked(point)).sort(([a], [b]) => marked(b) - marked(a));
    for (const [{ name }, x, y] of named) {
      const wide = pen.measureText(name).width;
      const gap = DOT + (marked({ name }) ? 7 : 4);
      const left = x + gap + wide > width ? x - gap - wide : x + gap; // beside its point, where there is room
      if (taken.some(([from, to, middle]) => left < to && left + wide > from && Math.abs(y - middle) < 13)) continue;
      taken.push([left, left + wide, y]);
      pen.fillText(name, left, y + 4);
    }
  }
}
