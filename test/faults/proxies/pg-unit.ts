// What the proxy knows of a client's statements: which of them load, which commit, and what has been answered.

/** What a statement is to the proxy. */
export type Meaning = "load" | "commit" | "other";
export const meaningOf = (query: string): Meaning =>
  query.includes("etl.load(") ? "load" : /^\s*(commit|end)\b/i.test(query) ? "commit" : "other";

/** From a client's first message after a Sync (or its simple Query) to the server's ReadyForQuery. */
export type Unit = {
  meaning: Meaning;
  /** The client has sent its last message of this unit. */
  complete: boolean;
  /** What is answered in place of its own answer, up to the ReadyForQuery. */
  instead: { readonly bytes: Buffer; readonly isError: boolean; readonly isLast: boolean } | null;
  /** It is not passed on. */
  skipped: boolean;
  /** The server's messages, kept until the answer is whole. */
  readonly answer: Buffer[];
};

export const newUnit = (): Unit => ({
  meaning: "other",
  complete: false,
  instead: null,
  skipped: false,
  answer: [],
});
