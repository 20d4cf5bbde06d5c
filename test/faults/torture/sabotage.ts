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
  /** The files where the place may be. */
  readonly files: RegExp;
  /** Of those, only the newest that has this: a later migration replaces what an earlier one defined. */
  readonly defines?: RegExp;
  readonly place: RegExp;
  readonly change: string;
  /** What brings it to light soonest. */
  readonly run: Partial<TortureOptions>;
};

/** How a migration begins that has the load as it is run. */
const DEFINES_LOAD = /^create (?:or replace )?function etl\.load\(/m;

const TOGETHER = { redeliver: 0.5, redeliverWithinMs: 50, together: true };

export const SABOTAGES: Readonly<Record<string, Sabotage>> = {
  "delete-before-commit": {
    files: /^src\/.+\.ts$/,
    place: /for await \(const stored of storeInParts\(/,
    change: "await run.line.queue.acknowledge(batch, options.signal);\n$&",
    run: {},
  },
  "no-ledger": {
    files: /^sql\/.+\.sql$/,
    defines: DEFINES_LOAD,
    place:
      /begin\s+insert into etl\.ledger \(sent_on, message_id\)[\s\S]*?exception when unique_violation then[\s\S]*?;\s+end;/,
    change: "return ids;",
    run: {},
  },
  unsorted: {
    files: /^sql\/.+\.sql$/,
    defines: DEFINES_LOAD,
    // Its days and its ids, which stay side by side.
    place:
      /order by m\.sent_on, m\.id\)(, '\{\}'\),\s+coalesce\(array_agg\(m\.sent_on) order by m\.sent_on, m\.id\)/,
    change: "order by md5(m.id || load.batch))$1 order by md5(m.id || load.batch))",
    run: TOGETHER,
  },
  "acknowledge-all": {
    files: /^src\/.+\.ts$/,
    place: /acknowledgeLater\(run, stored\.messages\)/,
    change: "acknowledgeLater(run, batch)",
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

function change(folder: string, name: string, sabotage: Sabotage): void {
  const { files, defines, place, change: words } = sabotage;
  const has = (pattern: RegExp) => (file: string) =>
    pattern.test(readFileSync(join(folder, file), "utf8"));
  const all = COPIED.slice(0, 3)
    .flatMap((top) =>
      readdirSync(join(folder, top), { recursive: true, encoding: "utf8" }).map(
        (file) => `${top}/${file}`,
      ),
    )
    .filter((file) => files.test(file))
    .sort();
  const looked = defines === undefined ? all : all.filter(has(defines)).slice(-1);
  const [file, ...others] = looked.filter(has(place));
  if (file === undefined || others.length > 0) {
    const found = file === undefined ? 0 : 1 + others.length;
    throw new Error(
      `${name}: expected one place in the source, found ${found}: change sabotage.ts`,
    );
  }
  const text = readFileSync(join(folder, file), "utf8");
  const places = text.match(new RegExp(place.source, "g")) ?? [];
  if (places.length !== 1) {
    throw new Error(`${name}: expected one place in ${file}, found ${places.length}`);
  }
  writeFileSync(join(folder, file), text.replace(place, words));
}
