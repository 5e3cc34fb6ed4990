// Whether the server is there: looked at now and then, and said in words while it is not. What was lost meanwhile is asked
// for again once it is back.

import { watchGone } from "./server.js";
import { reload, set, state } from "./store.js";
import { t } from "./words.js";

const CALM = 5000; // ms between two looks while the server is there
const EAGER = 1000; // and while it is not

let timer = null;
let looking = false;

const health = async () => {
  try {
    const response = await fetch("/health", { cache: "no-store" });
    const { status } = await response.json();
    return status === "loading" ? "lifeStarting" : status === "healthy" ? null : "lifeGone";
  } catch {
    return "lifeGone";
  }
};

const look = async () => {
  if (looking) return;
  looking = true;
  clearTimeout(timer);
  const wrong = await health();
  if (wrong) set({ away: wrong });
  else if (state.away) {
    set({ away: null, status: t("lifeBack") });
    await reload();
  }
  looking = false;
  timer = setTimeout(look, state.away ? EAGER : CALM);
};

export const watchServer = () => {
  watchGone(look);
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && look());
  return look();
};
