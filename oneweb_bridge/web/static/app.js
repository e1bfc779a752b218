/** The page: top bar, and the page that the address names. */
import { loadSession, session } from "./api.js";
import { FleetPage } from "./fleet.js";
import { html, render, useEffect, useState } from "./html.js";
import { connection, start, stop } from "./live.js";
import { route } from "./router.js";
import { SignInPage } from "./signin.js";
import { useStore } from "./store.js";
import { TopBar } from "./topbar.js";
import { Message, Page, useReached } from "./ui.js";

/** When uPlot is there too: its script runs behind this one, and only the pages with charts need it. */
const parsed = new Promise((done) => addEventListener("DOMContentLoaded", done, { once: true }));

/** Pages besides the fleet are loaded when they are opened, so that the first one is there quickly. */
const PAGES = {
  fleet: async () => FleetPage,
  terminal: async () => parsed.then(() => import("./terminal.js")).then((module) => module.TerminalPage),
  product: async () => parsed.then(() => import("./product.js")).then((module) => module.ProductPage),
  organizations: async () => (await import("./organizations.js")).OrganizationsPage,
  map: async () => (await import("./map.js")).MapPage,
  polling: async () => (await import("./polling.js")).PollingPage,
  events: async () => (await import("./events.js")).EventsPage,
  alerts: async () => (await import("./alerts.js")).AlertsPage,
  setup: async () => (await import("./setup.js")).SetupPage,
};
const loaded = { fleet: FleetPage };

function App() {
  const known = useStore(session);
  const { page, id } = useStore(route);
  useEffect(() => {
    scrollTo(0, 0);
  }, [page, id]);
  useEffect(() => {
    // The pages with the fleet start the stream themselves, behind what they have loaded.
    if (known?.signed_in && page !== "fleet" && page !== "map") start();
    if (known && !known.signed_in) stop();
  }, [known?.signed_in, page]);
  if (known === null) return html`<p class="message">Loading …</p>`;
  if (!known.signed_in) return html`<${TopBar} /><${SignInPage} />`;
  return html`<${TopBar} /><${Shown} key=${`${page}/${id}`} page=${page} id=${id} />`;
}

/** A page, once its module is there; without a connection it is loaded when there is one again. */
function Shown({ page, id }) {
  const [component, setComponent] = useState(() => loaded[page]);
  const [failed, setFailed] = useState(false);
  const line = useStore(connection);
  const isReached = useReached();
  useEffect(() => {
    if (component || !PAGES[page]) return;
    const keep = (module) => {
      loaded[page] = module;
      setComponent(() => module);
    };
    PAGES[page]().then(keep, () => setFailed(true));
  }, [page, line]);
  if (component) return html`<${component} id=${id} />`;
  if (!PAGES[page])
    return html`<${Page} name="none" title="No such page" ready><${Message}>There is no page at this address: <a
        href="#/">go to the fleet</a>.<//><//>`;
  return html`<${Page} name=${page} title="Loading …" ready=${false}>
    ${failed && isReached && html`<${Message} kind="bad">This page could not be loaded: load it again in a moment.<//>`}<//>`;
}

async function begin() {
  try {
    await loadSession();
  } catch {
    setTimeout(begin, 2000);
  }
}

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
begin();
