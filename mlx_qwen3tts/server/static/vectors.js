// Arithmetic of voices, and the files that hold them.

export const norm = (a) => Math.sqrt(a.reduce((sum, x) => sum + x * x, 0));
export const cosine = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0) / (norm(a) * norm(b));
const less = (a, mean) => Float64Array.from(a, (x, i) => x - mean[i]);

// The cosine of what is left of two voices once the mean of all is taken off.
export const likeness = (a, b, mean) => cosine(less(a, mean), less(b, mean));

// The sum of [vector, weight] pairs whose weights sum to one.
export const blend = (parts) =>
  Float32Array.from(parts[0][0], (_, i) => parts.reduce((sum, [vector, weight]) => sum + weight * vector[i], 0));

// Float32Array of the base64 of its bytes.
export const decoded = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);

// Sixteen hexadecimal digits by which a recipe knows its parents; null where the browser has no digest (pages without encryption).
export const fingerprint = async (vector) => {
  if (!crypto.subtle) return null;
  const digest = await crypto.subtle.digest("SHA-256", new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength));
  return Array.from(new Uint8Array(digest).subarray(0, 8), (x) => x.toString(16).padStart(2, "0")).join("");
};

const CONSENT = ["not-needed", "given", "unknown", "refused"]; // from the laxest to the strictest
const place = (consent) => (CONSENT.includes(consent) ? CONSENT.indexOf(consent) : CONSENT.indexOf("unknown"));

// {consent, license} of what is made of voices: the strictest of theirs, without what none of them has.
export const inherited = (parents) => {
  const found = {};
  if (parents.some(({ consent }) => consent)) found.consent = CONSENT[Math.max(...parents.map(({ consent }) => place(consent)))];
  if (parents.some(({ license }) => license)) {
    const names = [...new Set(parents.flatMap(({ license }) => (license ?? "unknown").split(" AND ")))].sort();
    found.license = names.includes("unknown") ? "unknown" : names.join(" AND ");
  }
  return found;
};

const file = (head, vector) => new Blob([head, new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength)]);

// NumPy's format 1.0.
export const npy = (vector) => {
  const words = `{'descr': '<f4', 'fortran_order': False, 'shape': (${vector.length},), }`;
  const text = `${words.padEnd(Math.ceil((words.length + 11) / 64) * 64 - 11)}\n`;
  const bytes = [0x93, ..."NUMPY"].map((c) => (typeof c === "string" ? c.charCodeAt(0) : c));
  return file(Uint8Array.from([...bytes, 1, 0, text.length & 255, text.length >> 8, ...new TextEncoder().encode(text)]), vector);
};

// A voice's file, as Voice.save writes it; told: its strings.
export const safetensors = (vector, told) => {
  const strings = Object.entries({ ...told, dimension: String(vector.length), format_version: "1" }).filter(([, value]) => value);
  const tensor = { dtype: "F32", shape: [vector.length], data_offsets: [0, vector.byteLength] };
  const header = { __metadata__: Object.fromEntries(strings.sort(([a], [b]) => (a < b ? -1 : 1))), speaker_embedding: tensor };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(bytes.length - 8), true);
  bytes.set(text, 8);
  return file(bytes, vector);
};
