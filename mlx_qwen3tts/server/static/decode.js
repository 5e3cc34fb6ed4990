// Files to samples, as exactly as the command `embed` reads them: decoded by the browser at the file's own rate, where its
// head tells it, and resampled here. What browsers resample by themselves costs 0.02 of a vector's cosine.

import { resampled } from "./resample.js";
import { RATE } from "./sound.js";

const MP3 = [44100, 48000, 32000];
const AAC = [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000];

const found = (bytes, word, from = 0, to = bytes.length) => {
  const codes = [...word].map((c) => c.charCodeAt(0));
  for (let at = from; at + codes.length <= Math.min(to, bytes.length); at++) {
    if (codes.every((code, i) => bytes[at + i] === code)) return at;
  }
  return -1;
};

const ofFlac = (bytes, at) => (bytes[at + 18] << 12) | (bytes[at + 19] << 4) | (bytes[at + 20] >> 4);

// The first frame of MPEG audio or of AAC in ADTS.
const ofFrames = (bytes) => {
  const tag = found(bytes, "ID3", 0, 3) === 0 ? 10 + bytes.subarray(6, 10).reduce((size, x) => (size << 7) | (x & 127), 0) : 0;
  for (let at = tag; at < Math.min(bytes.length - 4, tag + 8192); at++) {
    if (bytes[at] !== 0xff || (bytes[at + 1] & 0xe0) !== 0xe0) continue;
    const [layer, which] = [(bytes[at + 1] >> 1) & 3, (bytes[at + 2] >> 2) & 3];
    if (layer === 0 && (bytes[at + 1] & 0xf0) === 0xf0) return AAC[(bytes[at + 2] >> 2) & 15] ?? null;
    const version = (bytes[at + 1] >> 3) & 3; // 3 is MPEG 1, 2 is MPEG 2 with half its rates, 0 is MPEG 2.5 with a quarter
    if (layer !== 0 && version !== 1 && which !== 3) return MP3[which] / { 3: 1, 2: 2, 0: 4 }[version];
  }
  return null;
};

// The rate that a file's head tells, or null.
export const rateOf = (buffer) => {
  const [bytes, view] = [new Uint8Array(buffer), new DataView(buffer)];
  const begins = (word) => found(bytes, word, 0, word.length) === 0;
  if (begins("RIFF") || begins("RF64")) {
    const at = found(bytes, "fmt ", 0, 4096);
    return at < 0 ? null : view.getUint32(at + 12, true);
  }
  if (begins("fLaC")) return ofFlac(bytes, 0);
  if (begins("OggS")) {
    if (found(bytes, "OpusHead", 0, 256) > 0) return 48000;
    const [vorbis, flac] = [found(bytes, "\x01vorbis", 0, 256), found(bytes, "fLaC", 0, 256)];
    return vorbis > 0 ? view.getUint32(vorbis + 12, true) : flac > 0 ? ofFlac(bytes, flac) : null;
  }
  if (found(bytes, "ftyp", 0, 12) === 4) {
    const at = found(bytes, "mp4a");
    return at < 0 || at + 32 > bytes.length ? null : view.getUint32(at + 28) >>> 16;
  }
  return found(bytes, "A_OPUS", 0, 4096) > 0 ? 48000 : ofFrames(bytes);
};

// A file's samples at 24 kHz, the mean of its channels. What it throws is the browser's: it cannot read the file.
export const samplesOf = async (file) => {
  const buffer = await file.arrayBuffer();
  const told = buffer.byteLength > 64 ? rateOf(buffer) : null;
  const rate = told >= 8000 && told <= 96000 ? told : RATE; // what every browser takes
  const sound = await new OfflineAudioContext(1, 1, rate).decodeAudioData(buffer);
  const channels = Array.from({ length: sound.numberOfChannels }, (_, i) => sound.getChannelData(i));
  const mono = channels.length === 1 ? channels[0] : channels[0].map((_, i) => channels.reduce((sum, one) => sum + one[i], 0) / channels.length);
  return resampled(mono, rate, RATE);
};
