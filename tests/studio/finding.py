"""What the tests of the studio find on its page and in its store."""

# The takes that a page keeps, as a script for page.evaluate.
TAKES = """() => new Promise((resolve) => {
  const request = indexedDB.open("mlx_qwen3tts", 1);
  request.onsuccess = () => {
    const all = request.result.transaction("takes").objectStore("takes").getAll();
    all.onsuccess = () => resolve(all.result.map((take) => ({ ...take, samples: [...take.samples] })));
  };
})"""


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)
