// The words of the page, from one JSON file a language.

export const LANGUAGES = { en: "English", zh: "中文" };
const KEY = "studio.language";

const saved = localStorage.getItem(KEY);
export const language = saved in LANGUAGES ? saved : navigator.language.startsWith("zh") ? "zh" : "en";
let words = {};

export const loadWords = async () => {
  words = await (await fetch(new URL(`${language}.json`, import.meta.url))).json();
  document.documentElement.lang = language;
};

// The text of a key, with {name} replaced by values.name.
export const t = (key, values = {}) => words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);

export const choose = (code) => {
  localStorage.setItem(KEY, code);
  location.reload();
};
