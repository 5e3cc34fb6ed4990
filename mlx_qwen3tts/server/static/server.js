// What the page asks of the server.

import { t } from "./words.js";

export class Refused extends Error {
  constructor(message, body) {
    super(message);
    this.body = body;
  }
}

// The server did not answer, or left in the middle of its answer.
export class Gone extends Error {}

let missed = () => {};
export const watchGone = (call) => {
  missed = call;
};

// What comes of a request; fetch says of every failure of the network that it is a TypeError.
const reached = async (work) => {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    missed();
    throw new Gone(t("lifeGone"));
  }
};

const checked = async (response) => {
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Refused(body.error?.message ?? `${response.status} ${response.statusText}`, body);
};

export const get = async (path) => (await checked(await reached(fetch(path)))).json();

const sent = async (method, path, values, signal) => {
  const headers = { "content-type": "application/json" };
  return checked(await reached(fetch(path, { method, headers, body: JSON.stringify(values), signal })));
};
export const post = (path, values, signal) => sent("POST", path, values, signal);
export const patch = (path, values) => sent("PATCH", path, values);

export const send = async (path, fields) => {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  return (await checked(await reached(fetch(path, { method: "POST", body })))).json();
};

export const remove = async (path) => (await checked(await reached(fetch(path, { method: "DELETE" })))).json();

// Moves the voice of a running speech: {frame} from which on.
export const steer = async (id, values) => (await post(`/v1/audio/speech/${id}/steer`, values)).json();

// The samples of a speech as they come: Float32Arrays. began(id) is called with the first ones.
export async function* spoken(values, signal, began) {
  const response = await post("/v1/audio/speech", { ...values, response_format: "pcm", stream_format: "audio" }, signal);
  began(response.headers.get("x-request-id"));
  const reader = response.body.getReader();
  let rest = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reached(reader.read());
    if (done) return;
    const bytes = new Uint8Array(rest.length + value.length);
    bytes.set(rest);
    bytes.set(value, rest.length);
    const whole = bytes.length - (bytes.length % 2);
    rest = bytes.slice(whole);
    yield Float32Array.from(new Int16Array(bytes.buffer, 0, whole / 2), (x) => x / 32768);
  }
}
