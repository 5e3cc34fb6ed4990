// From one sample rate to another, by the filter of soxr's HQ recipe, which the package reads recordings with: a windowed
// sinc that passes up to 0.913 of what both rates can hold, and stops 126 dB from there to the end.

const [PASS, STOP, DECIBELS] = [0.913, 1, 126];
const BETA = 0.1102 * (DECIBELS - 8.7); // Kaiser's

const bessel = (x) => {
  let [sum, term] = [1, 1];
  for (let k = 1; term > 1e-12 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
};

const divisor = (a, b) => (b ? divisor(b, a % b) : a);

export const resampled = (samples, from, to) => {
  if (from === to) return samples;
  const common = divisor(from, to);
  const [up, down] = [to / common, from / common];
  const most = Math.min(from, to) / 2;
  const cut = ((PASS + STOP) / 2) * most;
  const half = ((DECIBELS - 8) * from) / (2.285 * 2 * Math.PI * (STOP - PASS) * most) / 2; // samples on either side
  const reach = Math.ceil(half);
  const top = bessel(BETA);
  const weight = (t) => {
    if (Math.abs(t) > half) return 0;
    const x = (2 * cut * t) / from;
    const sinc = x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
    return (((2 * cut) / from) * sinc * bessel(BETA * Math.sqrt(1 - (t / half) ** 2))) / top;
  };
  const out = new Float32Array(Math.round((samples.length * up) / down));
  const padded = new Float32Array(samples.length + 2 * reach + 2);
  padded.set(samples, reach);
  const kernel = new Float64Array(2 * reach);
  for (let phase = 0; phase < Math.min(up, out.length); phase++) {
    const part = ((phase * down) % up) / up;
    for (let i = 0; i < kernel.length; i++) kernel[i] = weight(i - reach + 1 - part);
    for (let n = phase; n < out.length; n += up) {
      const start = Math.floor((n * down) / up) + 1;
      let sum = 0;
      for (let i = 0; i < kernel.length; i++) sum += kernel[i] * padded[start + i];
      out[n] = sum;
    }
  }
  return out;
};
