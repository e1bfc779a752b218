/** The Polling Manager: what is polled, how often, how it went; switches, intervals, Poll. */
import { post, session } from "./api.js";
import { applyResult, calls, loadCalls, reloadCalls } from "./calls.js";
import { duration, interval, number, plural, UNKNOWN } from "./format.js";
import { Held } from "./held.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { subscribe } from "./live.js";
import { useStore } from "./store.js";
import { Ago, Page, Problem, StaleSign } from "./ui.js";

export function PollingPage() {
  const data = useStore(calls);
  const { read_only: readOnly } = useStore(session);
  useEffect(() => {
    loadCalls();
  }, []);
  const [all, send] = useCommand("all");
  return html`<${Page} name="polling" title="Polling Manager" ready=${data !== null} heading=${data && html`<${Cost}
      data=${data} />`}>
    <${Problem} error=${data?.error} />
    ${
      data &&
      !readOnly &&
      html`<div class="tools"><button aria-disabled=${all.waiting} onClick=${() => all.waiting || send("poll")}>Poll all</button>
      ${all.error && html`<span class="error" role="alert">${all.error}</span>`}</div>`
    }
    ${data?.held?.map((held) => html`<${Held} key=${held.call} held=${held} readOnly=${readOnly}
        alerts=${data.calls.find(({ call }) => call === held.call)?.alerts} />`)}
    ${
      data &&
      html`<div class="scroll"><table class="calls"><thead><tr>
      ${["Call", "On", "Interval", "Status", "Last poll", "Records", "Next", "Requests/h", "Poll"].map((label) => html`<th
          scope="col" class=${label === "Requests/h" ? "number" : ""}>${label}</th>`)}
    </tr></thead><tbody>
      ${data.calls.map((call) => html`<${CallRow} key=${call.call} call=${call} readOnly=${readOnly} />`)}
      ${data.calls.length === 0 && html`<tr><td colspan="9" class="muted">No calls: the bridge has not told them yet.</td></tr>`}
    </tbody></table></div>`
    }
  <//>`;
}

function Cost({ data }) {
  const words = data.limit
    ? `requests/h ${number(data.requests_per_hour)} of ${number(data.limit)}`
    : `${number(data.requests_per_hour)} requests/h, no limit`;
  return html`<p class="counts" title="what all calls that are on cost together">${words}</p>`;
}

const IDLE = { waiting: false, error: null, note: null };

/**
 * Sends commands for a call, and keeps what came of the last one until its result is there. A poll may take long: its
 * result comes over the live stream, and where that was cut, the call's own state says that it is over.
 */
function useCommand(call) {
  const [state, setState] = useState(IDLE);
  const expected = useRef(null);
  const pollBefore = useRef(null);
  const finish = (result) => {
    if (result.note) return setState({ ...IDLE, waiting: true, note: result.note });
    expected.current = null;
    if (result.state) applyResult(result.state);
    // That a poll failed stands in the call's state, until the next one that does not.
    return setState({ ...IDLE, error: result.status === "error" && !result.state ? result.error : null });
  };
  const isOver = ({ status, last_poll }) => status !== "polling" && last_poll !== pollBefore.current;
  useEffect(
    () =>
      subscribe((name, data) => {
        if (expected.current === null) return;
        if (name === "result" && data.body.id === expected.current) finish(data.body);
        // What came while there was no stream is not told again.
        if (name === "connected") setState(IDLE);
        if (name === "state" && data.call === call && data.body && isOver(data.body)) setState(IDLE);
      }),
    [],
  );
  const send = async (command, body = {}) => {
    const id = makeId();
    expected.current = id;
    pollBefore.current = calls.get()?.calls.find((state) => state.call === call)?.last_poll;
    setState({ ...IDLE, waiting: true });
    try {
      const answer = await post(`calls/${call}/${command}`, { ...body, id });
      if (answer.status !== undefined) finish(answer);
      if (command === "set") reloadCalls();
      return answer.status !== "error";
    } catch (refused) {
      expected.current = null;
      setState({ ...IDLE, error: refused.message });
      return false;
    }
  };
  return [state, send, () => setState(IDLE)];
}

/** An id of a command, by which its result is known. */
const makeId = () => `console-${[...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;

function CallRow({ call, readOnly }) {
  const name = call.call;
  const [polling, sendPoll] = useCommand(name);
  const [setting, sendSetting, clear] = useCommand(name);
  const status = polling.waiting ? "polling" : call.status;
  const error = setting.error ?? polling.error ?? call.error;
  const stored = ["enabled", "interval"].filter((key) => (call.source?.[key] ?? "file") !== "file");
  const back = () => sendSetting("set", { enabled: null, interval: null });
  return html`<tr data-testid="call-row" data-call=${name}>
    <th scope="row"><span class="name">${name}</span>
      ${call.about && html`<span class="source">${call.about}</span>`}
      ${
        stored.length > 0 &&
        html`<span class="source">${describeSource(call.source, stored)}
        ${!readOnly && html`<button class="link" aria-label=${`${name} back to the file`}
            onClick=${back}>back to the file</button>`}</span>`
      }
    </th>
    <td data-label="On"><input type="checkbox" role="switch" class="switch" aria-label=${`${name} on`}
        checked=${call.enabled}
      disabled=${readOnly} onChange=${(event) => sendSetting("set", { enabled: event.target.checked })} /></td>
    <td data-label="Interval"><${IntervalField} call=${call} readOnly=${readOnly} invalid=${setting.error !== null}
        send=${sendSetting} clear=${clear} /></td>
    <td data-label="Status"><span class="call-status" data-testid="call-status" data-status=${status}>${status}</span>
      ${call.enabled && !call.fresh && call.last_success && html`<${StaleSign} />`}</td>
    <td data-label="Last poll"><${Ago} time=${call.last_poll} /><${Took} ms=${call.duration_ms} /></td>
    <td data-label="Records" title="records listed; events and samples that they gave">${
      // Before the first poll since the start nothing is known of them.
      call.duration_ms === undefined
        ? UNKNOWN
        : html`${number(call.records)}
      <span class="muted small"> ${plural(call.events ?? 0, "event")}, ${plural(call.samples ?? 0, "sample")}</span>`
    }</td>
    <td data-label="Next">${call.enabled ? html`<${Ago} time=${call.next_poll} />` : UNKNOWN}</td>
    <td data-label="Requests/h" class="number" title="requests an hour that this call costs">${
      call.enabled && call.requests_per_hour === 0 ? "< 1" : number(call.requests_per_hour)
    }</td>
    <td>${!readOnly && html`<button aria-label=${`Poll ${name}`} aria-disabled=${polling.waiting}
        onClick=${() => polling.waiting || sendPoll("poll")}>Poll</button>`}</td>
  </tr>
  ${
    (error || polling.note) &&
    html`<tr class="why" data-why=${name}><td colspan="9" id=${`why-${name}`}>
    <span class=${setting.error || call.status !== "ok" ? "error" : "muted"}
        role="status">${error ?? polling.note}</span></td></tr>`
  }`;
}

const Took = ({ ms }) => ms !== undefined && html`<span class="muted small"> took ${duration(ms)}</span>`;

function describeSource(source, stored) {
  const words = { mqtt: "over MQTT", console: "here" };
  const by = (key) => words[source[key]] ?? source[key];
  const names = stored.map((key) => (key === "enabled" ? "switch" : key));
  if (new Set(stored.map(by)).size === 1) return `${names.join(" and ")} set ${by(stored[0])}`;
  return stored.map((key, i) => `${names[i]} set ${by(key)}`).join(", ");
}

/** The interval as it is typed: Enter or the button sends it, Escape takes it back. */
function IntervalField({ call, readOnly, invalid, send, clear }) {
  const [text, setText] = useState(null);
  const [sent, setSent] = useState(false);
  const shown = interval(call.interval);
  const submit = async (typed) => {
    const wish = typed.trim();
    setSent(true);
    if (await send("set", { interval: /^\d+$/.test(wish) ? Number(wish) : wish }))
      // What was typed meanwhile is not lost.
      setText((latest) => (latest === typed ? null : latest));
    setSent(false);
  };
  const key = (event) => {
    if (event.key === "Enter") submit(event.target.value);
    if (event.key !== "Escape") return;
    setText(null);
    clear();
  };
  const stretched = call.effective_interval > call.interval;
  const edited = text !== null && text.trim() !== shown && !sent;
  return html`<input class="interval" type="text" aria-label=${`${call.call} interval`} value=${text ?? shown}
      readonly=${readOnly}
      aria-invalid=${invalid} aria-describedby=${invalid ? `why-${call.call}` : undefined} spellcheck="false"
          autocomplete="off" enterkeyhint="done" title="such as 30s, 5m or 6h; Enter sets it, Escape takes it back"
      onInput=${(event) => setText(event.target.value)} onKeyDown=${key} />
    ${edited && html` <button class="primary" aria-label=${`Set ${call.call} interval`} onClick=${() => submit(text)}>Set</button>`}
    ${stretched && html`<span class="muted small"
        title="stretched, so that all calls fit the limit"> every ${duration(call.effective_interval * 1000)}</span>`}`;
}
