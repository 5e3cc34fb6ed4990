// What a blind comparison of two sounds stands on: their loudness, a coin, and how likely a result is by guessing.

// How likely somebody who guesses is to have `right` or more of `trials` right: the upper tail of the binomial
// distribution with one half, summed from its thin end.
export const chance = (right, trials) => {
  let [sum, term] = [0, 0.5 ** trials];
  for (let k = trials; k >= right; k--) {
    sum += term;
    term *= k / (trials - k + 1);
  }
  return Math.min(1, sum);
};

export const coin = () => crypto.getRandomValues(new Uint8Array(1))[0] & 1;

const filtered = (samples, [b0, b1, b2], [a1, a2]) => {
  const out = new Float64Array(samples.length);
  let [s1, s2] = [0, 0];
  for (let i = 0; i < samples.length; i++) {
    const y = b0 * samples[i] + s1;
    s1 = b1 * samples[i] - a1 * y + s2;
    s2 = b2 * samples[i] - a2 * y;
    out[i] = y;
  }
  return out;
};

// The two filters of ITU-R BS.1770 at any rate: its analogue prototypes, as libebur128 has them.
const weighted = (samples, rate) => {
  const shelf = { k: Math.tan((Math.PI * 1681.974450955533) / rate), q: 0.7071752369554196, high: 10 ** (3.999843853973347 / 20) };
  const cut = { k: Math.tan((Math.PI * 38.13547087602444) / rate), q: 0.5003270373238773 };
  const poles = ({ k, q }) => [(2 * (k * k - 1)) / (1 + k / q + k * k), (1 - k / q + k * k) / (1 + k / q + k * k)];
  const { k, q, high } = shelf;
  const middle = high ** 0.4996667741545416;
  const first = [high + (middle * k) / q + k * k, 2 * (k * k - high), high - (middle * k) / q + k * k];
  return filtered(filtered(samples, first.map((b) => b / (1 + k / q + k * k)), poles(shelf)), [1, -2, 1], poles(cut));
};

const mean = (values) => values.reduce((sum, x) => sum + x, 0) / values.length;
const level = (power) => 10 * Math.log10(power) - 0.691;

// Integrated loudness in LUFS: blocks of 0.4 s, without the pauses; -Infinity for silence.
export const loudness = (samples, rate) => {
  const x = weighted(samples, rate);
  const size = Math.max(1, Math.min(x.length, Math.round(0.4 * rate)));
  const powers = [];
  for (let at = 0; at + size <= x.length; at += Math.round(0.1 * rate)) powers.push(mean(x.subarray(at, at + size).map((v) => v * v)));
  const heard = powers.filter((power) => level(power) > -70);
  if (!heard.length) return -Infinity;
  const gate = level(mean(heard)) - 10;
  return level(mean(heard.filter((power) => level(power) > gate)));
};

// What each of two sounds is multiplied with to be as loud as the softer one. Neither is raised, so neither clips.
export const gains = (one, other) => {
  if (!Number.isFinite(one) || !Number.isFinite(other)) return [1, 1];
  const softer = Math.min(one, other);
  return [one, other].map((loud) => 10 ** ((softer - loud) / 20));
};
