/** The filters of fleet and map, which stand in the address. */
import { choices, filterRows } from "./fleetdata.js";
import { shorten } from "./format.js";
import { Component, html, useRef } from "./html.js";
import { setQuery } from "./router.js";

/** As useMemo, but it keeps only what was made: useMemo keeps the function too, and with it all rows as they were then. */
function useMade(make, inputs) {
  const kept = useRef({ inputs: [] });
  if (inputs.some((input, i) => input !== kept.current.inputs[i])) kept.current = { inputs, made: make() };
  return kept.current.made;
}

export function FleetFilters({ rows, query }) {
  const states = [...new Set(rows.map((row) => row.state).filter(Boolean))].sort();
  const customers = useMade(() => choices(rows, "end_customer_id", "end_customer"), [rows.length]);
  const sites = useMade(
    () => choices(filterRows(rows, { customer: query.customer }), "site_id", "site"),
    [rows.length, query.customer],
  );
  return html`
    <${Choice} label="State" name="state" value=${query.state} options=${states.map((state) => [state, state])} />
    <${Choice} label="Customer" name="customer" value=${query.customer} options=${customers} />
    <${Choice} label="Site" name="site" value=${query.site} options=${sites} />
    ${
      (query.q || query.state || query.customer || query.site) &&
      html`<button class="quiet"
      onClick=${() => setQuery({ q: "", state: "", customer: "", site: "" })}>Clear</button>`
    }`;
}

/**
 * A selection whose value stands in the address; a name there is as good as an id. There may be thousands of sites, so
 * it is drawn anew only when something of it changed. (Kept elements would do too, but keep all that was drawn with them.)
 */
export class Choice extends Component {
  shouldComponentUpdate(next) {
    return ["label", "name", "value", "options"].some((key) => next[key] !== this.props[key]);
  }

  render({ label, name, value = "", options }) {
    const chosen = options.find((option) => option.includes(value))?.[0] ?? value;
    const missing = chosen && !options.some(([id]) => id === chosen);
    const choose = (event) => setQuery({ [name]: event.target.value }, false);
    return html`<label class="choice"><span>${label}</span>
      <select aria-label=${label} value=${chosen} onChange=${choose}>
        <option value="">all</option>
        ${missing && html`<option value=${chosen}>${chosen}</option>`}
        ${options.map(([id, text]) => html`<option key=${id} value=${id}>${shorten(text)}</option>`)}
      </select></label>`;
  }
}
