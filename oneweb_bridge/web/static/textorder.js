/** The order of texts as people sort: without case and accents, numbers by their value. */
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

const PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
/** Each of them -> a character between the space and NUMBER, in the collator's order. */
const CHARACTERS = new Map(
  [...PUNCTUATION].sort(collator.compare).map((character, i) => [character, String.fromCharCode(33 + i)]),
);
const NUMBER = "A";
const LENGTH = 66;
const MAX_LENGTH = 1000;

/** A part of a text as its key has it: a number is its length and its digits; NUL for what is no printable ASCII. */
function translate(part) {
  if (!/^\d/.test(part)) return CHARACTERS.get(part) ?? "\0";
  const digits = part.replace(/^0+/, "");
  return NUMBER + String.fromCharCode(LENGTH + digits.length) + digits;
}

/**
 * A text with what is needed to compare it often: `key` is one that `<` orders as the collator orders the texts, which
 * takes it ten times as long. It is null for a text with other characters than printable ASCII.
 */
export function sortable(text) {
  const key = text.length > MAX_LENGTH ? "\0" : text.toLowerCase().replace(/\d+|[^a-z ]/g, translate);
  return { text, key: key.includes("\0") ? null : key };
}

/** Compares two that `sortable` gave. */
export function compareSortable(a, b) {
  if (a.key === null || b.key === null) return collator.compare(a.text, b.text);
  if (a.key === b.key) return 0;
  return a.key < b.key ? -1 : 1;
}

/** Items in the order of a text of theirs. */
export function sortByText(items, textOf) {
  return items
    .map((item) => ({ item, at: sortable(textOf(item)) }))
    .sort((a, b) => compareSortable(a.at, b.at))
    .map(({ item }) => item);
}
