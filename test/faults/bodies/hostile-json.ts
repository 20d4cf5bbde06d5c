// A reader of JSON of our own, by RFC 8259 and letter by letter, so that the tests do not hold veil's
// reading against itself. It keeps no stack but its own: depth costs it memory and nothing else.

export type Json =
  | { readonly type: "object"; readonly entries: ReadonlyMap<string, Json> }
  | { readonly type: "array" | "null" | "boolean" }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "number"; readonly text: string };

/** An object that is being read, and the key that waits for its value; or an array (its items are of no use). */
type Open = { readonly entries: Map<string, Json> | null; key: string };

/** Null: it is not JSON. */
export function readJson(text: string): Json | null {
  try {
    return new Reader(text).document();
  } catch (error) {
    if (error instanceof NotJson) return null;
    throw error;
  }
}

class NotJson extends Error {}

const ESCAPES: Readonly<Record<string, string>> = {
  ...{ '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" },
};
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?/y;
/** Up to the next quote or escape, without a control character. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: JSON forbids them
const PLAIN = /[^"\\\0-\x1f]*/y;
const SPACE = /[ \t\n\r]*/y;

class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  document(): Json {
    const open: Open[] = [];
    for (;;) {
      let value = this.#begin(open);
      // Every value ends here: it is handed to what is open, which may end with it, and so on.
      for (;;) {
        if (value === null) break;
        const outer = open.at(-1);
        if (outer === undefined) {
          this.#skip(SPACE);
          if (this.#at < this.#text.length) throw new NotJson();
          return value;
        }
        outer.entries?.set(outer.key, value);
        value = this.#afterItem(open, outer);
      }
    }
  }

  /** A whole value, or null where one was opened whose first item comes next. */
  #begin(open: Open[]): Json | null {
    this.#skip(SPACE);
    const first = this.#text[this.#at];
    if (first === "{" || first === "[") {
      this.#at++;
      this.#skip(SPACE);
      const entries = first === "{" ? new Map<string, Json>() : null;
      if (this.#take(first === "{" ? "}" : "]")) return closed(entries);
      open.push({ entries, key: entries === null ? "" : this.#key() });
      return null;
    }
    if (first === '"') return { type: "string", value: this.#string() };
    if (this.#take("true") || this.#take("false")) return { type: "boolean" };
    if (this.#take("null")) return { type: "null" };
    return { type: "number", text: this.#skip(NUMBER) || this.#fail() };
  }

  /** After a comma the next item begins, and there is no value yet. */
  #afterItem(open: Open[], outer: Open): Json | null {
    this.#skip(SPACE);
    if (this.#take(",")) {
      if (outer.entries !== null) {
        this.#skip(SPACE);
        outer.key = this.#key();
      }
      return null;
    }
    if (!this.#take(outer.entries === null ? "]" : "}")) this.#fail();
    open.pop();
    return closed(outer.entries);
  }

  #key(): string {
    const key = this.#string();
    this.#skip(SPACE);
    if (!this.#take(":")) this.#fail();
    return key;
  }

  #string(): string {
    if (!this.#take('"')) this.#fail();
    const parts: string[] = [];
    for (;;) {
      parts.push(this.#skip(PLAIN));
      if (this.#take('"')) return parts.join("");
      if (!this.#take("\\")) this.#fail();
      const letter = this.#text[this.#at++] ?? "";
      const hex = this.#text.slice(this.#at, this.#at + 4);
      if (letter === "u" && /^[0-9a-fA-F]{4}$/.test(hex)) {
        this.#at += 4;
        parts.push(String.fromCharCode(Number.parseInt(hex, 16)));
      } else parts.push(ESCAPES[letter] ?? this.#fail());
    }
  }

  #take(word: string): boolean {
    if (!this.#text.startsWith(word, this.#at)) return false;
    this.#at += word.length;
    return true;
  }

  #skip(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0] ?? "";
    this.#at += found.length;
    return found;
  }

  #fail(): never {
    throw new NotJson();
  }
}

const closed = (entries: ReadonlyMap<string, Json> | null): Json =>
  entries === null ? { type: "array" } : { type: "object", entries };
