// A menu of voices. It is drawn again only where something of it has changed: there may be a thousand of them.

import { html, useMemo } from "./htm.js";
import { state } from "./store.js";

// chosen: the value that is shown; without: names that are not offered; head, tail: [value, text] before and after them;
// pick: called with a value, the same one every time; the rest goes to the element.
export const Menu = ({ chosen, without = [], head = [], tail = [], pick, ...more }) => {
  const option = ([value, text]) => html`<option value=${value}>${text}</option>`;
  return useMemo(() => {
    const names = state.voices.map(({ name }) => name).filter((name) => !without.includes(name));
    return html`<select ...${more} value=${chosen} onChange=${(event) => pick(event.target.value)}>
      ${head.map(option)}${names.map((name) => option([name, name]))}${tail.map(option)}</select>`;
  }, [state.voices, JSON.stringify([chosen, without, head, tail, more])]);
};
