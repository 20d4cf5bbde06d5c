// Breaks veil on purpose, in a copy, to see the harness go red: a check that cannot fail is a defect. Each
// sabotage is one change of one place; where the source no longer has that place, it fails and says so.
import {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { TortureOptions } from "./run.ts";

export type Sabotage = {
  /** The files where the place may be: the newest that has it is changed. */
  readonly files: RegExp;
  readonly place: RegExp;
  readonly change: string;
  /** What brings it to light soonest. */
  readonly run: Partial<TortureOptions>;
};

const TOGETHER = { redeliver: 0.5, redeliverWithinMs: 50, together: true };

export const SABOTAGES: Readonly<Record<string, Sabotage>> = {
  "delete-before-commit": {
    files: /^src\/\w+\.ts$/,
    place: /await storeBatch\(\s*line,\s*(\w+),/,
    change: "await queue.acknowledge($1, options.signal);\n$&",
    run: {},
  },
  "no-ledger": {
    files: /^sql\/\w+\.sql$/,
    place:
      /insert into etl\.ledger \(sent_on, message_id\)\s+(select [\s\S]*?)\s+on conflict do nothing\s+returning message_id\s+\)/,
    change: "select unsaved.id as message_id from ( $1 ) unsaved (sent_on, id))",
    run: {},
  },
  unsorted: {
    files: /^sql\/\w+\.sql$/,
    place: /order by (?:1, 2|m\.sent_on, m\.id)(\s+on conflict do nothing)/,
    change: "order by random()$1",
    run: TOGETHER,
  },
  "acknowledge-all": {
    files: /^src\/\w+\.ts$/,
    place: /\bonStored\((?:stored|\w+\.stored)\)/,
    change: "onStored({ ...stored, messages })",
    run: { focus: "refused-batch" },
  },
};

const CHECKOUT = fileURLToPath(new URL("../../../", import.meta.url));
const COPIED = ["src", "sql", "vault", "package.json", "tsconfig.json", "bunfig.toml"];

/** A copy of the checkout with the one change; the caller removes its folder. */
export function sabotagedCopy(name: string): string {
  const sabotage = SABOTAGES[name];
  if (sabotage === undefined) {
    throw new Error(`no such sabotage; there are ${Object.keys(SABOTAGES).join(", ")}`);
  }
  const folder = mkdtempSync(join(tmpdir(), "veil-sabotage-"));
  try {
    for (const entry of COPIED)
      cpSync(join(CHECKOUT, entry), join(folder, entry), { recursive: true });
    symlinkSync(join(CHECKOUT, "node_modules"), join(folder, "node_modules"));
    change(folder, name, sabotage);
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw error;
  }
  return folder;
}

function change(folder: string, name: string, { files, place, change: words }: Sabotage): void {
  const candidates = COPIED.slice(0, 3)
    .flatMap((top) => readdirSync(join(folder, top)).map((file) => `${top}/${file}`))
    .filter((file) => files.test(file))
    .filter((file) => place.test(readFileSync(join(folder, file), "utf8")))
    .sort();
  // A later migration replaces what an earlier one defined.
  const file = candidates.at(-1);
  if (file === undefined || (file.startsWith("src/") && candidates.length > 1)) {
    throw new Error(
      `${name}: expected one place in the source, found ${candidates.length}: change sabotage.ts`,
    );
  }
  const text = readFileSync(join(folder, file), "utf8");
  const places = text.match(new RegExp(place.source, "g")) ?? [];
  if (places.length !== 1) {
    throw new Error(`${name}: expected one place in ${file}, found ${places.length}`);
  }
  writeFileSync(join(folder, file), text.replace(place, words));
}
