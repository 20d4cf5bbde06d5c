// What a run did and saw, for its table: counts by name, and what nobody should have seen.

/** State: the counts of a run. */
export class Tally {
  readonly kills = new Map<string, number>();
  readonly strikes = new Map<string, number>();
  /** How processes ended that nobody had struck down. */
  readonly deaths = new Map<string, number>();
  /** Each of them makes the verdict red. */
  readonly complaints: string[] = [];
  restarts = 0;
  /** Loads sent again because of another one, as far as processes lived to tell; null: none told. */
  retries: number | null = null;
  whileRecovering = 0;

  count(map: Map<string, number>, name: string): void {
    map.set(name, (map.get(name) ?? 0) + 1);
  }

  /** A process stopped and said what it had done. */
  stopped(summary: string): void {
    const retries = /"retries":(\d+)/.exec(summary)?.[1];
    if (retries !== undefined) this.retries = (this.retries ?? 0) + Number(retries);
  }

  totalKills(): number {
    return sum(this.kills);
  }
}

export const sum = (map: ReadonlyMap<string, number>): number =>
  [...map.values()].reduce((total, count) => total + count, 0);

/** Two columns under a title, the greatest first; empty where there is nothing to tell. */
export function section(title: string, map: ReadonlyMap<string, number>): string {
  if (map.size === 0) return "";
  const lines = [...map]
    .sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1))
    .map(([name, count]) => `  ${String(count).padStart(7)}  ${name}\n`);
  return `${title}: ${sum(map)}\n${lines.join("")}`;
}
