/** Who takes from a shared allowance, and how much: the sub-pool and its members. */
import { number, plural, UNKNOWN } from "./format.js";
import { html } from "./html.js";
import { address } from "./router.js";

export function PoolTable({ pool, own }) {
  const name = pool.shared_allowance_name ?? pool.shared_allowance_id;
  return html`<section class="card pool" data-testid="pool" data-id=${pool.shared_allowance_id}>
    <h2>Shared allowance <bdi>${name}</bdi></h2>
    <p class="muted">${plural(pool.members.length, "member")}${
      pool.shared_allowance_parent_id && html`; it is part of the pool <bdi>${pool.shared_allowance_parent_id}</bdi>`
    }. An API may report the use of the whole pool for each member.</p>
    <div class="scroll" tabindex="0" role="region" aria-label="Members of ${name}"><table>
      <thead><tr><th scope="col">Product</th><th scope="col">Terminal</th><th scope="col" class="number">Used</th>
        <th scope="col" class="number">Blocks</th></tr></thead>
      <tbody>${pool.members.map((member) => html`<${Member} key=${member.bucket_id} member=${member}
          isOwn=${member.product_id === own} />`)}
        ${pool.members.length === 0 && html`<tr><td colspan="4" class="muted">No members yet: they come with the call usage_consumption.</td></tr>`}</tbody></table></div>
  </section>`;
}

const Member = ({ member, isOwn }) => html`<tr data-bucket=${member.bucket_id}>
  <td>${isOwn ? html`<b><bdi>${member.product ?? member.product_id}</bdi></b> (this one)` : html`<${Link} page="product" id=${member.product_id} name=${member.product} />`}</td>
  <td><${Link} page="terminal" id=${member.imei} name=${member.terminal} /></td>
  <td class="number">${member.used_gb === null ? UNKNOWN : `${number(member.used_gb)} GB`}</td>
  <td class="number">${member.overage_blocks ?? UNKNOWN}</td></tr>`;

const Link = ({ page, id, name }) =>
  id === null
    ? html`<span class="unknown">${UNKNOWN}</span>`
    : html`<a href=${address(page, id)}><bdi>${name ?? id}</bdi></a>`;
