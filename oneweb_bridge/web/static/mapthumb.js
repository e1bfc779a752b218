/** Where a terminal is, on a small map of the world that leads to the large one. */
import { html, useEffect, useState } from "./html.js";
import { address } from "./router.js";

const SIZE = 10;

export const toMap = (longitude, latitude) => [SIZE * (longitude + 180), SIZE * (90 - latitude)];

let outline = null;

/** The outline of the land as an SVG path, once it is loaded: only pages with a map load it. */
export function useLand() {
  const [land, setLand] = useState(outline);
  useEffect(() => {
    if (!outline)
      import("./vendor/land.js").then(
        ({ LAND }) => {
          outline = LAND;
          setLand(LAND);
        },
        () => null,
      );
  }, []);
  return land;
}

export function MapThumb({ latitude, longitude, imei }) {
  const land = useLand();
  if (latitude === undefined || longitude === undefined) return null;
  const [x, y] = toMap(longitude, latitude);
  return html`<a class="thumb" href=${address("map", "", { q: imei })}
      aria-label=${`On the map: ${latitude.toFixed(2)}°, ${longitude.toFixed(2)}°`}>
    <svg viewBox=${`${x - 800} ${y - 400} 1600 800`} aria-hidden="true"><path class="land" d=${land} /><circle cx=${x}
        cy=${y} r="32" /></svg>
  </a>`;
}
