/** What is held: records or values that went missing at once, with the button that releases them. */
import { post } from "./api.js";
import { reloadCalls } from "./calls.js";
import { number, plural } from "./format.js";
import { html, useRef, useState } from "./html.js";
import { address } from "./router.js";
import { Ago } from "./ui.js";

/** The pages of the records of a call; others have none of their own. */
const PAGES = { user_terminals: "terminal", products: "product" };

/** What went missing from too many places at once waits for somebody who says that this is right. */
export function Held({ held, alerts, readOnly }) {
  const [state, setState] = useState({});
  const button = useRef(null);
  const what = describeHeld(held, alerts);
  const ask = (asked) => {
    setState({ asked });
    button.current?.focus();
  };
  const release = async () => {
    setState({ waiting: true });
    try {
      const answer = await post("requests/release", { call: held.call });
      setState({ error: answer?.error, released: !answer?.error });
      reloadCalls();
    } catch (refused) {
      setState({ error: refused.message });
    }
  };
  // The second press is a wish of its own: not the second click of a double one, and no key that is held down.
  const press = ({ detail }) => {
    if (detail > 1 || state.waiting) return;
    if (state.asked) release();
    else ask(true);
  };
  const key = (event) => {
    if (event.repeat && event.key !== "Tab") event.preventDefault();
    if (event.key === "Escape" && state.asked) ask(false);
  };
  return html`<div class="message" data-kind="warn">
    <p><b>Held: ${held.call}.</b> ${what} went missing at once${held.since &&
      html`, <${Ago} time=${held.since} />`}. They stay published as they were, until the API shows them again or you release them.</p>
    <${Which} held=${held} />
    ${!readOnly && html`<button ref=${button} aria-disabled=${state.waiting} onKeyDown=${key} onClick=${press}
        aria-label=${state.asked ? undefined : `Release ${held.call}`} class=${state.asked ? "primary" : ""}
        >${state.asked ? `Release ${what.replace(/,$/, "")}?` : "Release"}</button>
      ${state.asked && html` <button onClick=${() => ask(false)}>Cancel</button>`} <span class="muted small" role="status">${
          state.released
            ? "Released: what is still missing goes with the next listing that is complete."
            : "polls the call, and removes what is still missing"
        }</span>`}
    ${state.error && html`<span class="error" role="alert">${state.error}</span>`}
  </div>`;
}

function Which({ held: { call, count, ids } }) {
  if (!ids?.length) return null;
  const link = (id) => (PAGES[call] ? html`<a href=${address(PAGES[call], id)}><bdi>${id}</bdi></a>` : html`<bdi>${id}</bdi>`);
  return html`<details><summary>Which</summary><p>${ids.map((id, at) => [at > 0 && ", ", link(id)])}${
    count > ids.length && ` and ${number(count - ids.length)} more`
  }</p></details>`;
}

/** Records, values of records, or both, as the call's alerts say. */
function describeHeld({ count }, alerts = []) {
  const [records, values] = ["removal_held", "values_held"].map((kind) => alerts.some((alert) => alert.kind === kind));
  if (values && !records) return `values of ${plural(count, "record")}`;
  if (values) return `${plural(count, "record")}, or values of them,`;
  return plural(count, "record");
}
