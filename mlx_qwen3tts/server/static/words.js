// The words of a page, from one JSON file a language; what only one page says is in a file of its own.

export const LANGUAGES = { en: "English", zh: "中文" };
const KEY = "studio.language";

const saved = localStorage.getItem(KEY);
export const language = saved in LANGUAGES ? saved : navigator.language.startsWith("zh") ? "zh" : "en";
const words = {};

// more: the beginning of the name of a further file, such as "browser-".
export const loadWords = async (...more) => {
  const read = async (name) => (await fetch(new URL(`${name}${language}.json`, import.meta.url))).json();
  Object.assign(words, ...(await Promise.all(["", ...more].map(read))));
  document.documentElement.lang = language;
};

// The text of a key, with {name} replaced by values.name.
export const t = (key, values = {}) => words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);

export const choose = (code) => {
  localStorage.setItem(KEY, code);
  location.reload();
};
