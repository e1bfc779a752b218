/** A menu below a button: Escape, a click elsewhere and a focus elsewhere close it. */
import { html, useEffect, useRef } from "./html.js";

export function Menu({ label, children }) {
  const menu = useRef(null);
  useEffect(() => closeFromOutside(menu.current), []);
  const key = (event) => {
    if (event.key !== "Escape" || !menu.current.open) return;
    event.stopPropagation();
    menu.current.open = false;
    menu.current.querySelector("summary").focus();
  };
  const leave = ({ relatedTarget }) => {
    if (relatedTarget && !menu.current.contains(relatedTarget)) menu.current.open = false;
  };
  return html`<details class="menu" ref=${menu} onKeyDown=${key} onFocusOut=${leave}><summary>${label}</summary>
    <div>${children}</div></details>`;
}

/** A click beside the open menu closes it, and does nothing else: neither the press nor the click comes through. */
function closeFromOutside(menu) {
  let isClosing = false;
  const swallow = (event) => {
    event.preventDefault();
    event.stopPropagation();
  };
  const press = (event) => {
    isClosing = menu.open && !menu.contains(event.target);
    if (isClosing) swallow(event);
  };
  const click = (event) => {
    if (!isClosing) return;
    isClosing = false;
    swallow(event);
    menu.open = false;
  };
  document.addEventListener("mousedown", press, true);
  document.addEventListener("click", click, true);
  return () => {
    document.removeEventListener("mousedown", press, true);
    document.removeEventListener("click", click, true);
  };
}
