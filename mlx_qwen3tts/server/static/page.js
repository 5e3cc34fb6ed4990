// The page: choose a voice, type, hear it; and the line with which a program does the same.

const at = (id) => document.getElementById(id);
const [form, text, voice, speak, stop, status, sound, curl] =
  ["form", "text", "voice", "speak", "stop", "status", "sound", "curl"].map(at);
let running = null;

const answer = async (response) => {
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Error(body.error?.message ?? `${response.status} ${response.statusText}`);
};

const quoted = (words) => `'${words.replaceAll("'", "'\\''")}'`;

const body = () => JSON.stringify({ input: text.value, ...(voice.value && { voice: voice.value }) });

const showLine = () => {
  const head = `curl ${location.origin}/v1/audio/speech -H content-type:application/json`;
  curl.textContent = `${head} -d ${quoted(body())} -o speech.mp3`;
};

const begin = async () => {
  at("base").textContent = `${location.origin}/v1`;
  const [models, voices] = await Promise.all(
    ["/v1/models", "/v1/audio/voices"].map(async (path) => (await answer(await fetch(path))).json()),
  );
  at("model").textContent = models.data[0].id;
  voice.replaceChildren(...voices.names.map((name) => new Option(name, name)));
  voice.disabled = voices.names.length === 0;
  showLine();
};

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  running?.abort();
  const own = (running = new AbortController());
  [speak.disabled, stop.disabled, status.textContent] = [true, false, "Speaking …"];
  try {
    const headers = { "content-type": "application/json" };
    const options = { method: "POST", headers, body: body(), signal: own.signal };
    const made = await (await answer(await fetch("/v1/audio/speech", options))).blob();
    URL.revokeObjectURL(sound.src);
    [sound.src, sound.hidden, status.textContent] = [URL.createObjectURL(made), false, ""];
    await sound.play();
  } catch (error) {
    status.textContent = error.name === "AbortError" ? "Stopped." : error.message;
  } finally {
    if (running === own) [speak.disabled, stop.disabled] = [false, true];
  }
});

stop.addEventListener("click", () => {
  running?.abort();
  sound.pause();
});
text.addEventListener("input", showLine);
voice.addEventListener("change", showLine);
begin().catch((error) => { status.textContent = error.message; });
