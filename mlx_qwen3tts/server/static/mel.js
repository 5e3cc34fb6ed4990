// The log-mel spectrogram that the speaker encoder listens to, as networks/speaker/mel.py computes it: 24 kHz mono, reflect
// padding, periodic Hann window, magnitude sqrt(re² + im² + 1e-9), Slaney bands with Slaney norm, ln(max(x, 1e-5)).

const RATE = 24000;
const FFT = 1024;
const HOP = 256;
const BINS = FFT / 2 + 1;

const hann = Float32Array.from({ length: FFT }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / FFT));
const cosines = Float64Array.from({ length: FFT / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / FFT));
const sines = Float64Array.from({ length: FFT / 2 }, (_, i) => -Math.sin((2 * Math.PI * i) / FFT));
const reversed = Uint16Array.from({ length: FFT }, (_, i) => parseInt(i.toString(2).padStart(10, "0").split("").reverse().join(""), 2));

// Radix-2 Fourier transform in place; re and im hold FFT numbers, in bit-reversed order.
const transform = (re, im) => {
  for (let size = 2; size <= FFT; size *= 2) {
    const half = size / 2;
    const step = FFT / size;
    for (let start = 0; start < FFT; start += size) {
      for (let i = 0; i < half; i++) {
        const [c, s] = [cosines[i * step], sines[i * step]];
        const [a, b] = [start + i, start + i + half];
        const x = re[b] * c - im[b] * s;
        const y = re[b] * s + im[b] * c;
        re[b] = re[a] - x;
        im[b] = im[a] - y;
        re[a] += x;
        im[a] += y;
      }
    }
  }
};

// Slaney's mel scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above.
const hertz = (mel) => (mel < 15 ? (mel * 200) / 3 : 1000 * Math.exp(((mel - 15) * Math.log(6.4)) / 27));

// For every band: its first bin, and its weights from there on.
const filters = (bands) => {
  const top = 15 + (Math.log(RATE / 2000) * 27) / Math.log(6.4);
  const edges = Array.from({ length: bands + 2 }, (_, i) => hertz((top * i) / (bands + 1)));
  return Array.from({ length: bands }, (_, band) => {
    const [low, middle, high] = edges.slice(band, band + 3);
    const weight = (bin) => {
      const at = (bin * RATE) / FFT;
      return Math.fround(Math.max(0, Math.min((at - low) / (middle - low), (high - at) / (high - middle))) * (2 / (high - low)));
    };
    const first = Math.ceil((low * FFT) / RATE);
    const last = Math.min(BINS - 1, Math.floor((high * FFT) / RATE));
    return { first, weights: Float64Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => weight(first + i)) };
  });
};

// Samples at 24 kHz to {mel, frames}: Float32Array of frames × bands.
export const logMel = (samples, bands) => {
  const pad = (FFT - HOP) / 2;
  const length = samples.length + 2 * pad;
  const at = (i) => {
    const place = i - pad;
    return samples[place < 0 ? -place : place < samples.length ? place : 2 * samples.length - 2 - place];
  };
  const frames = Math.floor((length - FFT) / HOP) + 1;
  const mel = new Float32Array(frames * bands);
  const made = filters(bands);
  const [re, im, heard] = [new Float64Array(FFT), new Float64Array(FFT), new Float64Array(BINS)];
  for (let frame = 0; frame < frames; frame++) {
    im.fill(0);
    for (let i = 0; i < FFT; i++) re[reversed[i]] = Math.fround(at(frame * HOP + i) * hann[i]);
    transform(re, im);
    for (let bin = 0; bin < BINS; bin++) heard[bin] = Math.sqrt(re[bin] ** 2 + im[bin] ** 2 + 1e-9);
    made.forEach(({ first, weights }, band) => {
      const sum = weights.reduce((total, weight, i) => total + weight * heard[first + i], 0);
      mel[frame * bands + band] = Math.log(Math.max(sum, 1e-5));
    });
  }
  return { mel, frames };
};
