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

// A WAV file of 16 bits, one channel, of parts that are such samples.
export const wavOf = (parts) => {
  const view = new DataView(new ArrayBuffer(44));
  const bytes = parts.reduce((sum, part) => sum + part.byteLength, 0);
  const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, RATE, true);
  view.setUint32(28, 2 * RATE, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, bytes, true);
  return new Blob([view, ...parts], { type: "audio/wav" });
};
export const wav = (samples) => wavOf([Int16Array.from(samples, (x) => Math.max(-32768, Math.min(32767, Math.round(32768 * x))))]);

export const download = (blob, name) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
};
