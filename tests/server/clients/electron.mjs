// What the main process of an Electron app does with docs/apps.md's speech.mjs: node electron.mjs SPEECH.mjs PROGRAM OPTION…
// Prints one line of JSON, and then waits to be killed.
const [, , module, program, ...options] = process.argv;
const { start, speak } = await import(module);
const server = await start(program, options);
const sound = await speak(server.url, "Hello.", "voice01");
const told = { url: server.url, port: server.port, head: sound.subarray(0, 4).toString(), bytes: sound.length };
try {
  await speak(server.url, "Hello.", "nobody");
} catch (error) {
  told.error = error.message;
}
const giveUp = new AbortController();
setTimeout(() => giveUp.abort(), 200);
try {
  await speak(server.url, "One two three four five. ".repeat(100), "voice01", giveUp.signal);
} catch (error) {
  told.aborted = error.name;
}
try {
  await start(program, ["serve", "--model", "nowhere"]);
} catch (error) {
  told.failed = error.message;
}
console.log(JSON.stringify(told));
setInterval(() => {}, 1000);
