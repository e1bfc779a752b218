/** Numbers, times and names in words. What is not known is a dash, never 0. */
import { createStore, readSetting, writeSetting } from "./store.js";

export const UNKNOWN = "–";

/** Times are shown in UTC, or in the time of this browser. */
export const zone = createStore(readSetting("zone", "UTC"));
zone.subscribe((value) => writeSetting("zone", value));

const MINUTE = 60000;
const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

const UNITS = {
  dbm: "dBm",
  db: "dB",
  pct: "%",
  ms: "ms",
  m: "m",
  gb: "GB",
  mbps: "Mbit/s",
  dbk: "dB/K",
  bytes: "B",
  bps: "bit/s",
  blocks: "blocks",
};
const ACRONYMS = new Set("imei imsi id ip sinr rsrp rssi cnx wan mgmt ef af be".split(" "));
const WORDS = { ids: "IDs", tx: "sent", rx: "received", mgmt: "management", nr: "number" };

/** Milliseconds of a time that is RFC 3339 or already milliseconds; null where there is none. */
export function toMs(time) {
  if (time === null || time === undefined) return null;
  const ms = typeof time === "number" ? time : Date.parse(time);
  return Number.isNaN(ms) ? null : ms;
}

function pattern(options) {
  const formats = {};
  return (ms) => {
    const timeZone = zone.get() === "UTC" ? "UTC" : undefined;
    formats[timeZone] ??= new Intl.DateTimeFormat("en-GB", { ...options, timeZone });
    return formats[timeZone].format(ms);
  };
}

const formatFull = pattern({
  year: "numeric",
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});
const formatClock = pattern({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
const formatShort = pattern({ hour: "2-digit", minute: "2-digit" });
const formatDate = pattern({ day: "numeric", month: "short" });
const formatYear = pattern({ day: "numeric", month: "short", year: "numeric" });

export const fullTime = (ms) => `${formatFull(ms)} ${zone.get() === "UTC" ? "UTC" : "local time"}`;
export const clockTime = (ms) => formatClock(ms);
export const shortTime = (ms) => formatShort(ms);
/** `27 Nov`, with the year where it is another one. */
export const day = (ms) => (Math.abs(ms - Date.now()) < 180 * DAY ? formatDate(ms) : formatYear(ms));
export const dayAndTime = (ms) => `${day(ms)} ${formatShort(ms)}`;
export const iso = (ms) => new Date(ms).toISOString();

/** `4 min ago`, `in 2 h`. */
export function relative(ms, now) {
  if (Math.abs(now - ms) < 5000) return "now";
  const words = duration(Math.abs(now - ms));
  return ms > now + 1000 ? `in ${words}` : `${words} ago`;
}

/** `40 min`: the largest unit that gives at least 1; of hours and days below 3 the next one too. */
export function duration(ms) {
  const units = [
    [DAY, "d"],
    [HOUR, "h"],
    [MINUTE, "min"],
    [1000, "s"],
  ];
  const index = units.findIndex(([size]) => ms >= size);
  if (index < 0) return ms > 0 && ms < 1000 ? `${Math.round(ms)} ms` : "0 s";
  const [size, name] = units[index];
  const whole = Math.floor(ms / size);
  const next = units[index + 1];
  const rest = size >= HOUR && whole < 3 ? Math.floor((ms % size) / next[0]) : 0;
  return rest ? `${whole} ${name} ${rest} ${next[1]}` : `${whole} ${name}`;
}

/** An interval in seconds as it is typed: `5m`, `300s`, `6h`. */
export function interval(seconds) {
  for (const [size, name] of [
    [86400, "d"],
    [3600, "h"],
    [60, "m"],
  ]) {
    if (seconds >= size && seconds % size === 0) return `${seconds / size}${name}`;
  }
  return `${seconds}s`;
}

/** A number with at most so many digits behind the point, in groups of three. */
export function number(value, digits = 2) {
  if (value === null || value === undefined || !Number.isFinite(value)) return UNKNOWN;
  return value
    .toLocaleString("en-GB", { maximumFractionDigits: digits })
    .replaceAll(",", "\u2009")
    .replace("-", "\u2212");
}

export const fixed = (value, digits) =>
  value === null || value === undefined ? UNKNOWN : value.toFixed(digits).replace("-", "\u2212");

/** The factor and name of a unit that suits the largest value: bytes and bits get a prefix. */
export function scaleOf(unit, largest) {
  if (!/^(B|B\/s|bit\/s|bps)$/.test(unit ?? "")) return { factor: 1, unit: unit ?? "" };
  const steps = [
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
    [1, ""],
  ];
  const [factor, prefix] = steps.find(([size]) => Math.abs(largest) >= size) ?? steps[4];
  return { factor, unit: prefix + (unit === "bps" ? "bit/s" : unit) };
}

export function quantity(value, unit) {
  if (value === null || value === undefined) return UNKNOWN;
  const scale = scaleOf(unit, value);
  return `${number(value / scale.factor)} ${scale.unit}`.trim();
}

/** The unit that a field's name ends in, and its name in words: `sinr_db` is `SINR` in dB. */
export function describeField(name) {
  const words = name.split("_");
  const unit = words.length > 1 ? UNITS[words.at(-1)] : undefined;
  if (unit) words.pop();
  const named = words.map((word) => WORDS[word] ?? (ACRONYMS.has(word) ? word.toUpperCase() : word));
  const label = named.join(" ");
  return { label: label.charAt(0).toUpperCase() + label.slice(1), unit: unit ?? "" };
}

/** A member of a record in words. */
export function fieldValue(name, value) {
  if (value === null || value === undefined || value === "") return UNKNOWN;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.length ? value.join(", ") : UNKNOWN;
  if (typeof value === "object") return JSON.stringify(value);
  if (typeof value !== "number") return isTime(value) ? fullTime(Date.parse(value)) : value;
  if (/^(latitude|longitude)$/.test(name)) return `${fixed(value, 5)}°`;
  return quantity(value, describeField(name).unit);
}

const isTime = (text) => /^\d{4}-\d\d-\d\dT\d\d:\d\d/.test(text) && !Number.isNaN(Date.parse(text));

export const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

/** A name that may be of any length. */
export const shorten = (text, length = 60) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
