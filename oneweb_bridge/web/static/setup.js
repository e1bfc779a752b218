/** The first page while there is nothing to show: three steps, how far the bridge is, and what `explore` found. */
import { bridge } from "./bridge.js";
import { calls, loadCalls } from "./calls.js";
import { ExplorationReport } from "./exploration.js";
import { fleet, loadFleet } from "./fleetdata.js";
import { plural } from "./format.js";
import { html, useEffect } from "./html.js";
import { useStore } from "./store.js";
import { Ago, Message, Page } from "./ui.js";

/** `isEmpty`: it stands in the place of the fleet, which has no terminals; `sentence` says why, where that is known. */
export function SetupPage({ isEmpty = false, sentence }) {
  const state = useStore(bridge);
  const polled = useStore(calls);
  const listed = useStore(fleet);
  useEffect(() => {
    loadCalls();
    loadFleet();
  }, []);
  const api = state?.info?.api;
  const enabled = polled?.calls.filter((call) => call.enabled) ?? [];
  const done = enabled.filter(({ status, last_success }) => ["ok", "held"].includes(status) || (["polling", "waiting"].includes(status) && last_success));
  const terminals = isEmpty ? 0 : (listed?.rows.length ?? 0);
  const accepted = api ? api.state === "ok" && Boolean(api.hello_at) : false;
  const complete = terminals > 0 && done.length === enabled.length;
  return html`<${Page} name="setup" title="Setting up" ready=${state !== null && polled !== null && listed !== null}>
    <p>${describeProgress(accepted && complete && state.ready?.broker, terminals)}</p>
    ${sentence && html`<${Message}>${sentence}<//>`}
    <ol class="steps">
      <${Step} done=${accepted} title="Give the bridge the credentials of the OneWeb API">
        <p>Put client id and secret into the environment as <code>ONEWEB_CLIENT_ID</code> and <code>ONEWEB_CLIENT_SECRET</code>, or into <code>bridge.yaml</code> as <code>api.client_id</code> and <code>api.client_secret_file</code>; then restart the bridge. They are never typed into this page.</p>
        ${api && html`<p class=${accepted ? "good" : "error"}>${accepted ? html`The API accepted them <${Ago}
            time=${api.hello_at} />.` : (api.error ?? `The API is ${api.state}.`)}</p>`}
      <//>
      <${Step} done=${complete} title="See what your API answers">
        <p>Run <code>oneweb-bridge explore --write bridge.yaml</code> on the bridge's machine: it asks each API once, read-only, and writes the lines that your deployment needs; restart the bridge afterwards.</p>
        <${ExplorationReport} needed=${!complete} />
        <h3>What the bridge's own polls found so far</h3>
        <table class="record"><tbody>${enabled.map(
          (call) => html`<tr key=${call.call}><th scope="row">${call.call}</th>
          <td><span class="call-status" data-status=${call.status}>${call.status}</span> ${call.error ?? (call.last_success && call.duration_ms !== undefined ? plural(call.records, "record") : "")}</td></tr>`,
        )}${enabled.length === 0 && html`<tr><td class="muted">No call is on: switch some on in the <a href="#/polling">Polling Manager</a>.</td></tr>`}</tbody></table>
      <//>
      <${Step} done=${state?.ready?.broker === true} title="Let it run">
        <p>${state?.ready?.broker ? "The broker takes what the bridge publishes." : html`The broker is not reached: <code>oneweb-bridge check</code> says why.`} The <a href="#/polling">Polling Manager</a> shows each call, and polls at once.</p>
      <//>
    </ol>
  <//>`;
}

const Step = ({ done, title, children }) => html`<li class="card" data-done=${done ? "" : undefined}>
  <h2>${title} <span class="small ${done ? "good" : "muted"}">${done ? "done" : "open"}</span></h2>${children}</li>`;

function describeProgress(isDone, terminals) {
  const fleet = html`on the page <a href="#/">Fleet</a>`;
  if (isDone) return html`<b class="good">All three steps are done.</b> Your terminals are ${fleet}.`;
  if (terminals > 0) return html`Your terminals are ${fleet}; what is still open stands below.`;
  return "Three steps bring your terminals here; this page follows them by itself.";
}
