// What the npm clients make of a server: node speak.mjs openai|ai URL. Prints one JSON object.
const [, , client, url] = process.argv;
const input = "Hello.";
const results = {};

if (client === "openai") {
  const { default: OpenAI } = await import("openai");
  const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const mp3 = await openai.audio.speech.create({ model: "tts-1", voice: "alloy", input });
  results.type = mp3.headers.get("content-type");
  results.bytes = (await mp3.arrayBuffer()).byteLength;
  const sse = await openai.audio.speech.create({ model: "tts-1", voice: "anna", input, stream_format: "sse" });
  results.events = (await sse.text()).split("\n\n").filter((part) => part.startsWith("event: speech.audio.")).length;
  results.models = (await openai.models.list()).data.map((model) => model.object);
  try {
    await openai.audio.speech.create({ model: "tts-1", voice: "nobody", input });
  } catch (error) {
    results.error = { status: error.status, code: error.code, param: error.param, message: error.message };
  }
} else {
  const { experimental_generateSpeech: generateSpeech } = await import("ai");
  const { createOpenAI } = await import("@ai-sdk/openai");
  const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
  const { audio } = await generateSpeech({ model: openai.speech("tts-1"), text: input, voice: "alloy" });
  results.type = audio.mediaType;
  results.bytes = audio.uint8Array.length;
}
console.log(JSON.stringify(results));
