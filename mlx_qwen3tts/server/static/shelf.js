// The takes on this computer, kept by the browser (IndexedDB).

const opened = new Promise((resolve, reject) => {
  const request = indexedDB.open("mlx_qwen3tts", 1);
  request.onupgradeneeded = () => request.result.createObjectStore("takes", { keyPath: "id", autoIncrement: true });
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

const asked = async (mode, what) => {
  const store = (await opened).transaction("takes", mode).objectStore("takes");
  return new Promise((resolve, reject) => {
    const request = what(store);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
};

// Between the tabs that show this page.
const tabs = new BroadcastChannel("mlx_qwen3tts takes");
export const watch = (call) => {
  tabs.onmessage = call;
};

const changed = async (what) => {
  const result = await asked("readwrite", what);
  tabs.postMessage(null);
  return result;
};

export const takes = () => asked("readonly", (store) => store.getAll());
export const keep = (take) => changed((store) => store.add(take));
export const forget = (id) => changed((store) => store.delete(id));
