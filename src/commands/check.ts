// `veil check`: a line for each invariant. Where one is broken, its first offenders are named, and
// the exit code is 1.
import { checkInvariant, type Finding, INVARIANTS } from "../check.ts";
import { failed } from "../failure.ts";
import { printable, type Terminal } from "../terminal/terminal.ts";
import type { Context } from "./servers.ts";
import { withDatabase } from "./with-database.ts";

const NEEDS = { roles: ["veil_operator"], orRoles: ["veil_auditor"] } as const;

export async function runCheck(context: Context, json: boolean): Promise<void> {
  const { terminal } = context;
  const findings: Finding[] = [];
  await withDatabase(context, NEEDS, async ({ database }) => {
    const started = performance.now();
    try {
      for (const [i, invariant] of INVARIANTS.entries()) {
        const of = `${i + 1} of ${INVARIANTS.length}`;
        const finding = await saying(terminal, `${of}: ${invariant.description}`, () =>
          checkInvariant(database, invariant),
        );
        findings.push(finding);
        if (!json) terminal.out(line(finding));
      }
    } finally {
      // Findings are printed, also where a later check failed.
      if (json) terminal.out(`${JSON.stringify(summary(findings, performance.now() - started))}\n`);
    }
  });
  const broken = findings.filter(({ offenders }) => offenders > 0);
  for (const [i, finding] of broken.entries()) {
    const { message, hint } = explain(finding);
    if (i === broken.length - 1) throw failed(message, hint);
    terminal.err(`error: ${printable(message)}\nhint: ${hint}\n`);
  }
}

/** Shows `text` on stderr while `work` runs, where stderr is a terminal. */
async function saying<T>(terminal: Terminal, text: string, work: () => Promise<T>): Promise<T> {
  const say = (line: string) => {
    if (terminal.isStderrTerminal) terminal.err(`\r${line}\u001b[K`);
  };
  say(text);
  try {
    return await work();
  } finally {
    say("");
  }
}

const WIDTH = Math.max(...INVARIANTS.map(({ description }) => description.length));

const line = ({ invariant, checked, offenders }: Finding): string =>
  `${offenders === 0 ? "ok    " : "BROKEN"}  ${invariant.description.padEnd(WIDTH)}  ` +
  `${offenders === 0 ? "" : `${offenders} of `}${checked}\n`;

function summary(findings: readonly Finding[], milliseconds: number) {
  return {
    ok: findings.length === INVARIANTS.length && findings.every(({ offenders }) => offenders === 0),
    invariants: findings.map(({ invariant, checked, offenders, examples }) => ({
      name: invariant.name,
      description: invariant.description,
      ok: offenders === 0,
      checked,
      offenders,
      examples,
    })),
    seconds: Math.round(milliseconds / 10) / 100,
  };
}

function explain({ invariant, checked, offenders, examples }: Finding) {
  const { name, hint } = invariant;
  const more = offenders > examples.length && examples.length > 0 ? ", …" : "";
  const named = examples.length > 0 ? `: ${examples.join(", ")}${more}` : "";
  return { message: `${name} is broken, ${offenders} of ${checked}${named}`, hint };
}
