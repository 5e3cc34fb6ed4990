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

export const takes = () => asked("readonly", (store) => store.getAll());
export const keep = (take) => asked("readwrite", (store) => store.add(take));
export const forget = (id) => asked("readwrite", (store) => store.delete(id));
