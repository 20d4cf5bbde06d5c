// What an oracle finds wrong, counted by kind, with the first few message ids of each; never with values.

export type Kind = "lost" | "twice" | "wrong" | "orphan" | "early";

export type Finding = {
  readonly kind: Kind;
  readonly what: string;
  count: number;
  readonly examples: string[];
};

const MOST_EXAMPLES = 5;

/** State: the findings so far. */
export class Findings {
  readonly #all = new Map<string, Finding>();
  readonly #found = new Map<Kind, Set<string>>();

  /** `about` names a message, or a token or data key where no message is known. */
  add(kind: Kind, what: string, about: string): void {
    const key = `${kind}: ${what}`;
    const finding = this.#all.get(key) ?? { kind, what, count: 0, examples: [] };
    finding.count++;
    if (finding.examples.length < MOST_EXAMPLES) finding.examples.push(about);
    this.#all.set(key, finding);
    this.#found.set(kind, (this.#found.get(kind) ?? new Set()).add(about));
  }

  /** How many messages: one that is lost in two ways is lost once. */
  count(kind: Kind): number {
    return this.#found.get(kind)?.size ?? 0;
  }

  list(): readonly Finding[] {
    return [...this.#all.values()];
  }

  /** The verdict in one line, then a line for each finding. */
  text(): string {
    const words = [
      `lost ${this.count("lost")}`,
      `twice ${this.count("twice")}`,
      `wrong ${this.count("wrong")}`,
      `orphan tokens ${this.count("orphan")}`,
      `acknowledged before stored ${this.count("early")}`,
    ];
    const lines = this.list().map(
      ({ kind, what, count, examples }) =>
        `  ${kind}: ${what}: ${count}${examples.length > 0 ? ` (${examples.join(", ")})` : ""}`,
    );
    return [words.join(", "), ...lines].join("\n");
  }
}
