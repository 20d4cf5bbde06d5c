// The pages' own commands and queries, read out of them and run in their order. (CI runs the two lines of the
// quick start as they stand there.)
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { parseMessage } from "../../src/login/parse.ts";
import { type Block, blocksOf, DOCS, filesBelow, PAGES, type Page, README, read } from "./pages.ts";
import { ORIGINAL, openScene, type Scene, standIns } from "./scene.ts";

/** In the order in which one reader would follow them: all of them are about the database of the first. */
const STORY = [
  ...["connect", "roles", "configuration", "analysts", "operations", "recovery"],
  ...["recovery-without-veil", "deno", "audit", "erasure", "development", "architecture", "design"],
].map((name) => `docs/${name}.md`);

/** As whom a page's queries are run; the database's owner where none is named. */
const READERS: Readonly<Record<string, string>> = {
  "docs/analysts.md": "alice",
  "docs/audit.md": "audit",
};

/** Why a block is not run. `test/x.test.ts runs it` is a reason, too. */
const REASONS = ["another machine", "an example", "AWS", "Docker", "systemd"];

const isRun = ({ language, note }: Block): boolean =>
  note === "" && (language === "sh" || language === "sql");

function runPage(page: Page, scene: () => Scene): void {
  for (const block of blocksOf(page).filter(isRun)) {
    const lines = block.text.split("\n");
    const [first = ""] = lines.filter((line) => !/^(export|--)/.test(line));
    const played = standIns().filter((name) => lines.some((line) => line.includes(`${name} -`)));
    const by = played.length === 0 ? "" : ` (a stand-in for ${played.join(" and ")})`;
    test(`${page.path}:${block.line}: ${first.slice(0, 60)}${by}`, async () => {
      if (block.language === "sql") await runQueries(page, block, scene());
      else await runCommands(page, block, scene());
    });
  }
}

async function runQueries(page: Page, { text }: Block, scene: Scene): Promise<void> {
  const reader = READERS[page.path] ?? null;
  const sql = scene.sql(reader);
  for (const statement of text.split(/;\n/).filter((part) => part.trim() !== "")) {
    const answer = await sql.unsafe(statement);
    // The samples answer every question that an analyst's page asks.
    if (reader !== "alice") continue;
    expect({ statement, rows: answer.length > 0 }).toEqual({ statement, rows: true });
  }
}

async function runCommands(page: Page, { text }: Block, scene: Scene): Promise<void> {
  const isDeno = page.path === "docs/deno.md";
  const inCheckout = page.path === "docs/development.md";
  const { code, stdout, stderr } = await scene.shell(text, { isDeno, inCheckout });
  expect({ text, code, stderr: code === 0 ? "" : stderr }).toEqual({ text, code: 0, stderr: "" });
  if (text.includes("--allow-write")) await revealWithDeno(text, stdout, scene);
  else if (text.includes(" reveal ")) expect(stdout).toContain(ORIGINAL);
  if (/^veil etl$/m.test(text)) expect(stdout).toMatch(/became rows +97/);
  if (text.includes("--decrypt")) expect(stdout).toBe(`${ORIGINAL}\n`);
  if (text.includes("veil token")) expect(stdout).toContain(await scene.token());
  if (text.includes("quarantine list")) expect(stdout).toContain("ip is an array");
  if (text.includes("duplicates")) expect(stdout).toContain("device_id,dev1_");
}

/** What the drain by Deno named as an example opens by Deno too: no Bun is in it. */
async function revealWithDeno(text: string, output: string, scene: Scene): Promise<void> {
  expect(output).toMatch(/became rows +97/);
  const token = /reveal (ip1_[a-z2-7]{26})/.exec(output)?.[1] ?? "";
  const command = text.split("\n").find((line) => line.startsWith("deno run ")) ?? "";
  const reveal = `${command.replace(/ etl$/, "")} reveal ${token} --json`;
  const { stdout } = await scene.shell(reveal, { isDeno: true });
  expect(JSON.parse(stdout)).toMatchObject([{ token, field: "ip", verified: true }]);
}

function inOneScene(pages: readonly Page[]): void {
  let scene: Scene | null = null;
  beforeAll(async () => {
    scene = await openScene();
  });
  afterAll(async () => await scene?.end());
  for (const page of pages) {
    describe(page.path, () => {
      beforeAll(() => scene?.turnPage());
      runPage(page, () => scene!);
    });
  }
}

describe("the front page", () => inOneScene([README]));
describe("the guides", () =>
  inOneScene(STORY.map((path) => DOCS.find((page) => page.path === path)!)));

test("the message that docs/connect.md shows is a login", () => {
  const page = DOCS.find(({ path }) => path === "docs/connect.md")!;
  const [example] = blocksOf(page).filter(({ language }) => language === "json");
  expect(parseMessage(example?.text ?? "")).toMatchObject({
    kind: "login",
    login: { userId: "user-04", ip: ORIGINAL, appVersion: 2_003_000 },
  });
});

describe("of the pages' blocks", () => {
  test("each page's are in the story", () => {
    expect(DOCS.map(({ path }) => path).sort()).toEqual([...STORY].sort());
  });

  test("those that are not run say why", () => {
    const tests = filesBelow("test", ".test.ts");
    const unexplained = PAGES.flatMap((page) =>
      blocksOf(page)
        .filter(({ note }) => note !== "")
        .filter(({ note }) => {
          const [, why = ""] = /^not run: (.+)$/.exec(note) ?? [];
          const [, file = ""] = /^(test\/\S+) runs it$/.exec(why) ?? [];
          return (
            !REASONS.includes(why) && !(tests.includes(file) && read(file).includes(page.path))
          );
        })
        .map(({ line, note }) => `${page.path}:${line}: ${note}`),
    );
    expect(unexplained).toEqual([]);
  });

  test("those without such a word are commands, queries, or no language of a computer's", () => {
    const others = PAGES.flatMap((page) =>
      blocksOf(page).map(({ language, line }) => `${page.path}:${line}: ${language}`),
    ).filter((block) => !/: (sh|sql|json|ini)?$/.test(block));
    expect(others).toEqual([]);
    expect(PAGES.flatMap(blocksOf).filter(isRun).length).toBeGreaterThan(25);
  });
});
