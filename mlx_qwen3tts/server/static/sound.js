// One player for everything that is heard, and samples to files.

export const RATE = 24000;
let node = null;
let context = null;
let out = null; // where all sound leads
let ended = null; // what to call once the present sound is over
let count = 0;

const ready = async () => {
  if (!node) {
    context = new AudioContext({ sampleRate: RATE });
    await context.audioWorklet.addModule(new URL("player.js", import.meta.url));
    node = new AudioWorkletNode(context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    node.port.onmessage = ({ data }) => {
      if (data.ended === count) over(data.gaps);
    };
    out = new GainNode(context);
    out.connect(context.destination);
    node.connect(out);
  }
  await context.resume();
};

const over = (gaps) => {
  const call = ended;
  ended = null;
  call?.(gaps);
};

// Begins a sound; whatever is heard ends. Gives what adds samples to it, and what says that it is whole. done(gaps) is
// called when it was heard or was stopped.
export const play = async (done) => {
  stop();
  const id = ++count;
  ended = done;
  await ready();
  if (id === count) node.port.postMessage({ begin: id });
  return {
    add: (samples) => node.port.postMessage({ id, samples }),
    finish: () => node.port.postMessage({ id, finish: true }),
  };
};

// Where the one player's sound leads, for what is played by other means; whatever is heard ends. done() is called when
// something else begins or all is stopped; null where that was so before it began.
export const borrow = async (done) => {
  stop();
  const id = ++count;
  ended = done;
  await ready();
  return id === count ? out : null;
};

export const stop = () => {
  count += 1;
  node?.port.postMessage({ begin: null });
  over(0);
};

export const joined = (parts) => {
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
};

// A WAV file of 16 bits, one channel, of parts that are such samples. Its words are RIFF, WAVE, "fmt " and data, as numbers of
// a little-endian machine, which every browser's is.
export const wavOf = (parts) => {
  const bytes = parts.reduce((sum, part) => sum + part.byteLength, 0);
  const head = Uint32Array.of(0x46464952, 36 + bytes, 0x45564157, 0x20746d66, 16, 0x10001, RATE, 2 * RATE, 0x100002, 0x61746164, bytes);
  return new Blob([head, ...parts], { type: "audio/wav" });
};
export const wav = (samples) => wavOf([Int16Array.from(samples, (x) => Math.max(-32768, Math.min(32767, Math.round(32768 * x))))]);

export const download = (blob, name) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
};
