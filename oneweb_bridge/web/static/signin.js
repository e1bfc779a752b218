/** Sign-in: one field and a button. */
import { loadSession, request } from "./api.js";
import { html, useState } from "./html.js";
import { writeSetting } from "./store.js";
import { Page } from "./ui.js";

export function SignInPage() {
  const [token, setToken] = useState("");
  const [error, setError] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    try {
      await request("session", { method: "POST", body: { token } });
      writeSetting("token", true);
      await loadSession();
    } catch (refused) {
      setError(refused.message);
    }
  };
  return html`<${Page} name="sign-in" title="Sign in" ready>
    <form class="card sign-in" onSubmit=${submit}>
      <label for="token">Token</label>
      <input id="token" class="secret" type="text" autocomplete="off" autocapitalize="off" spellcheck="false"
        aria-invalid=${error !== null} aria-describedby="token-error" value=${token}
            onInput=${(event) => setToken(event.target.value)} />
      <p id="token-error" class="error" role="alert">${error}</p>
      <button class="primary">Sign in</button>
      <p class="muted">It is <code>console.token</code> in the bridge's configuration.</p>
    </form>
  <//>`;
}
