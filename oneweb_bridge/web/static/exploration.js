/** What `oneweb-bridge explore` found last: the sentences that it printed. Nothing can be changed here. */
import { get } from "./api.js";
import { html, useEffect, useState } from "./html.js";
import { Ago, isTold } from "./ui.js";

const EVERY_MS = 5000;
const WORDS = { whole: "read in full", partial: "not in full", not_reached: "not reached", skipped: "not asked" };
const STATUS = { whole: "ok", partial: "incomplete", not_reached: "failed" };

/** The report, looked for again every few seconds: the command runs elsewhere, and tells nobody. */
export function ExplorationReport({ needed }) {
  const [state, setState] = useState(null);
  useEffect(() => {
    const load = () =>
      get("exploration").then(
        ({ exploration }) => setState({ exploration }),
        (error) => setState((old) => ({ ...old, error })),
      );
    load();
    const timer = setInterval(() => document.hidden || load(), EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  return html`<div data-testid="exploration">
    <h3>What explore found</h3>
    ${state === null && html`<p class="muted">Loading …</p>`}
    ${isTold(state?.error) && html`<p class="error">${state.error.message}</p>`}
    ${state?.exploration === null && html`<p><b>explore was never run</b> with this bridge's database (the report is kept beside it)${needed ? "" : "; it need not be while each call below is ok"}.</p>`}
    ${state?.exploration && html`<${Report} report=${state.exploration} />`}
  </div>`;
}

const Report = ({ report }) => html`
  <p class=${report.signed_in ? "" : "error"}>Run <${Ago} time=${report.time} />: ${report.sign_in}</p>
  <p><b>${report.conclusion}</b></p>
  ${report.general.map((text) => html`<p key=${text}>All calls: ${text}.</p>`)}
  <table class="record"><tbody>${report.calls.map((call) => html`<${Row} key=${call.call} call=${call} />`)}</tbody></table>
  ${report.changes && html`<p>${report.written ? "These lines were written into the file:" : "Lines for bridge.yaml:"}</p>
    <pre class="snippet" tabindex="0" role="region" aria-label="Lines for bridge.yaml">${report.changes}</pre>`}`;

const Row = ({ call }) => html`<tr data-explored=${call.call}>
  <th scope="row">${call.call}${!call.enabled && html` <span class="small">(not enabled)</span>`}</th>
  <td><span class="call-status" data-status=${STATUS[call.outcome]}>${WORDS[call.outcome]}</span> <bdi>${call.summary}</bdi>
    ${call.problems.map((text) => html`<p class="error" key=${text}>${text}</p>`)}
    ${call.differs.map((text) => html`<p class="muted" key=${text}>Differs: ${text}</p>`)}</td></tr>`;
