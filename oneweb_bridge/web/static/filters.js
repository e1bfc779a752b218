/** The filters of fleet and map, which stand in the address. */
import { choices, filterRows } from "./fleetdata.js";
import { shorten } from "./format.js";
import { Component, html, useRef } from "./html.js";
import { setQuery } from "./router.js";
import { useSubtree } from "./subtree.js";

/** As useMemo, but it keeps only what was made: useMemo keeps the function too, and with it all rows as they were then. */
function useMade(make, inputs) {
  const kept = useRef({ inputs: [] });
  if (inputs.some((input, i) => input !== kept.current.inputs[i])) kept.current = { inputs, made: make() };
  return kept.current.made;
}

/** The filters. There may be thousands of customers and sites: they are there once it is to be `complete`. */
export function FleetFilters({ rows, query, complete }) {
  const states = [...new Set(rows.map((row) => row.state).filter(Boolean))].sort();
  const below = useSubtree(query.organization);
  const listed = complete ? rows : [];
  const customers = useMade(() => choices(listed, "end_customer_id", "end_customer"), [listed.length]);
  const sites = useMade(
    () => choices(filterRows(listed, { customer: query.customer }), "site_id", "site"),
    [listed.length, query.customer],
  );
  return html`
    <${Choice} label="State" name="state" value=${query.state} options=${states.map((state) => [state, state])} />
    <${Choice} label="Customer" name="customer" value=${query.customer} options=${customers} />
    <${Choice} label="Site" name="site" value=${query.site} options=${sites} />
    ${below && html`<${Choice} label="Organization" name="organization" value=${below.id} options=${[[below.id, below.name]]} />`}
    ${
      (query.organization || query.q || query.state || query.customer || query.site) &&
      html`<button class="quiet"
      onClick=${() => setQuery({ q: "", state: "", customer: "", site: "", organization: "" })}>Clear</button>`
    }`;
}

const isSame = (options, others) =>
  options === others ||
  (options.length === others.length && options.every(([id, text], i) => id === others[i][0] && text === others[i][1]));

/**
 * A selection whose value stands in the address; a name there is as good as an id. There may be thousands of sites, so
 * its options are made here and not drawn with the page, and only when they changed.
 */
export class Choice extends Component {
  shouldComponentUpdate(next) {
    const { options, ...others } = this.props;
    return Object.keys(others).some((key) => next[key] !== others[key]) || !isSame(options, next.options);
  }

  componentDidMount() {
    this.fill();
  }

  componentDidUpdate() {
    this.fill();
  }

  fill() {
    const { options, value = "" } = this.props;
    const select = this.base.querySelector("select");
    const chosen = options.find((option) => option.includes(value))?.[0] ?? value;
    if (!this.options || !isSame(this.options, options)) {
      this.options = options;
      select.replaceChildren(new Option("all", ""), ...options.map(([id, text]) => new Option(shorten(text), id)));
    }
    select.value = chosen;
    if (select.value === chosen) return;
    select.add(new Option(chosen, chosen), 1);
    select.value = chosen;
  }

  render({ label, name }) {
    const choose = (event) => setQuery({ [name]: event.target.value }, false);
    return html`<label class="choice"><span>${label}</span><select aria-label=${label} onChange=${choose}></select></label>`;
  }
}
