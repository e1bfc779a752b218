/** All fields of a record, with their names in words and their units. */
import { describeField, fieldValue, zone } from "./format.js";
import { html } from "./html.js";
import { useStore } from "./store.js";

const LONG = 400;
/** What alone is no change: it stands as of the record's last one. */
const VOLATILE = new Set(["last_seen", "last_update"]);

export function RecordTable({ record }) {
  useStore(zone);
  const names = Object.keys(record).filter((name) => !["time", "ts"].includes(name));
  return html`<table class="record"><tbody>
    ${names.map((name) => html`<tr key=${name}><th scope="row"
        title=${name}>${describeField(name).label}</th><td><${Value}
        text=${fieldValue(name, record[name])} />${VOLATILE.has(name) && html` <span class="muted small">at the last change of the record</span>`}</td></tr>`)}
  </tbody></table>`;
}

/** A text of any length and direction; a very long one is folded. */
export function Value({ text }) {
  const shown = String(text);
  if (shown.length <= LONG) return html`<bdi>${shown}</bdi>`;
  return html`<details><summary><bdi>${shown.slice(0, 80)}…</bdi> (${shown.length} characters)</summary><bdi>${shown}</bdi></details>`;
}
