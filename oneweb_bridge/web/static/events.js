/** Events of all records: newest first, live, with filters and a pause. */
import { fleet, loadFleet } from "./fleetdata.js";
import { choices } from "./fleetdata.js";
import { EventList } from "./eventlist.js";
import { Choice } from "./filters.js";
import { html, useCallback, useEffect, useMemo, useState } from "./html.js";
import { route, setQuery } from "./router.js";
import { useStore } from "./store.js";
import { Page } from "./ui.js";

const same = (values) => values.map((value) => [value, value]);

export function EventsPage() {
  const { query } = useStore(route);
  const data = useStore(fleet);
  const [paused, setPaused] = useState(false);
  const [ready, setReady] = useState(false);
  useEffect(() => {
    loadFleet();
  }, []);
  const customers = useMemo(() => choices(data?.rows ?? [], "end_customer_id", "end_customer"), [data?.rows.length]);
  const ofCustomer = useMemo(
    () => new Set((data?.rows ?? []).filter((row) => row.end_customer_id === query.customer).map((row) => row.imei)),
    [data?.rows.length, query.customer],
  );
  const fits = useCallback(
    (event) => {
      const { changed = {}, record = {} } = event.data;
      if (
        query.field &&
        !Object.keys(changed).some((name) => name === query.field || name.startsWith(`${query.field}.`))
      )
        return false;
      // Its terminals and products, and its own record.
      return (
        !query.customer || [event.subject, record.end_customer_id].includes(query.customer) || ofCustomer.has(event.subject)
      );
    },
    [query.field, query.customer, ofCustomer],
  );
  return html`<${Page} name="events" title="Events" ready=${ready}>
    <div class="tools">
      <${Choice} label="Kind" name="kind" value=${query.kind} options=${same(["added", "changed", "removed"])} />
      <${Choice} label="Entity" name="entity" value=${query.entity}
          options=${same(["terminal", "product", "organization", "site"])} />
      <label class="choice"><span>Field</span><input type="text" value=${query.field ?? ""} placeholder="such as state" spellcheck="false"
          onChange=${(event) => setQuery({ field: event.target.value.trim() })} /></label>
      <${Choice} label="Customer" name="customer" value=${query.customer} options=${customers} />
      <span class="spacer"></span>
      <button aria-pressed=${paused} onClick=${() => setPaused(!paused)}>${paused ? "Go on" : "Pause"}</button>
    </div>
    <div class="card"><${EventList} filter=${{ kind: query.kind, entity: query.entity }} limit="100" fits=${fits}
        paused=${paused} onReady=${setReady} /></div>
  <//>`;
}
