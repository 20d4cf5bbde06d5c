// In which order a reveal asks, fetches and prints, and how much it holds meanwhile: over a database that only
// writes down what it is asked.
import { describe, expect, test } from "bun:test";
import { Failure } from "../../src/failure.ts";
import type { OpeningKeys } from "../../src/keys/open.ts";
import type { Database, Query } from "../../src/postgres/database.ts";
import type { Row } from "../../src/postgres/values.ts";
import { joinLogins, type RevealedLogin } from "../../src/recovery/join.ts";
import { LOGINS_PER_PAGE } from "../../src/recovery/logins.ts";
import { type Recovery, TOKENS_PER_REQUEST } from "../../src/recovery/request.ts";
import { revealTokens } from "../../src/recovery/reveal.ts";

const LETTERS = "abcdefghijklmnopqrstuvwxyz234567";

function token(prefix: string, n: number): string {
  let letters = "";
  for (let rest = n; letters.length < 25; rest = Math.floor(rest / 32)) {
    letters += LETTERS[rest % 32];
  }
  return `${prefix}1_${letters}a`;
}

const grounds = { reason: null, purpose: null, breakGlass: false };

/** Opens everything; what it says of a token is `original of TOKEN`, and whatever was sealed. */
const keys = {
  open: async ({ sealed }: { sealed: Uint8Array }, place: { token: string }) => ({
    text: `original of ${place.token}${Buffer.from(sealed)}`,
    verified: true,
  }),
} as unknown as OpeningKeys;

const base64 = (text: string): string => Buffer.from(text).toString("base64");

/** What the driver writes, of values without quotes in them. */
const readArray = (literal: string): (string | null)[] => JSON.parse(`[${literal.slice(1, -1)}]`);

/** The months of these days, as the database answers with its periods. */
function monthsOf(days: readonly (string | null)[]) {
  const months = new Set(days.map((day) => day?.slice(0, 7) ?? null));
  return [...months].map((month) => {
    if (month === null) return { first: null, until: null };
    const next = new Date(`${month}-15`);
    next.setUTCMonth(next.getUTCMonth() + 1);
    return { first: `${month}-01`, until: `${next.toISOString().slice(0, 7)}-01` };
  });
}

/** A database with every original but these, and a list of what was done to it. */
function recorder(
  options: {
    unknown?: ReadonlySet<string>;
    /** A month of which there is no original. */
    expired?: string;
    refuse?: (nth: number) => string;
  } = {},
) {
  const steps: string[] = [];
  const requests: string[][] = [];
  const logins: Row[] = [];
  let at = 0;
  const fetched = (nth: number) => {
    steps.push(`fetch ${nth}`);
    const refusal = options.refuse?.(nth) ?? "";
    if (refusal !== "") throw new Failure(1, "refused", null, refusal);
  };
  const key = { data_key: "k", generation: 1, wrapped: "AAAA", proof: "AAAA" };
  const query: Query = async (text, values = []): Promise<readonly Row[]> => {
    if (/request_reveal|break_glass/.test(text)) {
      steps.push("record");
      requests.push(JSON.parse(`[${String(values[0]).slice(1, -1)}]`));
      return [{ id: String(requests.length - 1) }];
    }
    if (text.includes("fetch_reveal")) {
      const nth = Number(values[0]);
      fetched(nth);
      // The last first: the order of an answer is the database's.
      const seals = requests[nth]!.filter((asked) => !options.unknown?.has(asked))
        .reverse()
        .map((asked) => `${asked} 2026-01-01T00:00:00.000Z `);
      return [
        { ...key, seals: seals.join(",") },
        // What nobody asked for is never printed.
        { ...key, seals: `${token("dev", 99_999_999)} 2026-01-01T00:00:00.000Z ` },
      ];
    }
    if (text.includes("fetch_in_periods")) {
      const nth = Number(values[0]);
      fetched(nth);
      const [tokens, days] = values.slice(1).map((list) => readArray(String(list)));
      return monthsOf(days!).map(({ first, until }) => {
        const month = first?.slice(0, 7) ?? null;
        const here = tokens!.filter((_, n) => (days![n]?.slice(0, 7) ?? null) === month);
        const asked = new Set(requests[nth]);
        const seal = (one: string | null) => {
          expect(asked.has(one!)).toBe(true);
          const isHeld = !(options.unknown?.has(one!) || options.expired === month);
          return isHeld ? `${one} 2026-01-01T00:00:00.000Z ${base64(` in ${month}`)}` : `${one}`;
        };
        return { ...key, first, until, seals: [...new Set(here)].map(seal).join(",") };
      });
    }
    if (text.startsWith("fetch forward")) {
      const page = logins.slice(at, at + LOGINS_PER_PAGE);
      at += page.length;
      return page;
    }
    if (text.startsWith("move absolute 0")) at = 0;
    return [];
  };
  const database = {
    query,
    snapshot: <T>(work: (query: Query) => Promise<T>) => work(query),
  } as unknown as Database;
  const recovery: Recovery = {
    database,
    keys,
    grounds,
    onRecorded: async () => {
      steps.push("all recorded");
    },
  };
  return { steps, requests, logins, recovery };
}

describe("a reveal of many tokens", () => {
  const tokens = Array.from({ length: 2 * TOKENS_PER_REQUEST + 5 }, (_, n) => token("ip", n));

  test("records every request before it fetches the first", async () => {
    const { steps, requests, recovery } = recorder();
    for await (const _ of revealTokens(recovery, new Set(tokens)));
    expect(steps).toEqual([
      ...["record", "record", "record", "all recorded", "fetch 0", "fetch 1", "fetch 2"],
    ]);
    expect(requests.flat()).toEqual(tokens);
  });

  test("answers once for each distinct token, in the order of first appearance", async () => {
    const unknown = new Set([tokens[3]!, tokens.at(-1)!]);
    const { recovery } = recorder({ unknown });
    const revealed: string[] = [];
    const lost: string[] = [];
    for await (const page of revealTokens(recovery, new Set([...tokens, tokens[7]!, tokens[0]!]))) {
      for (const { token, original } of page.revealed) {
        expect(original).toBe(`original of ${token}`);
        revealed.push(token);
      }
      lost.push(...page.unknown);
      expect(page.unopened).toEqual([]);
    }
    expect(revealed).toEqual(tokens.filter((one) => !unknown.has(one)));
    expect(lost).toEqual([...unknown]);
  });

  test("holds no more than the page that is printed and the one after it", async () => {
    const { steps, recovery } = recorder();
    let printed = 0;
    for await (const _ of revealTokens(recovery, new Set(tokens))) {
      printed++;
      expect(steps.filter((step) => step.startsWith("fetch")).length).toBeLessThanOrEqual(
        printed + 1,
      );
    }
    expect(printed).toBe(3);
  });

  test("prints what came before a request that is refused, and then throws", async () => {
    const { recovery } = recorder({ refuse: (nth) => (nth === 1 ? "VL035" : "") });
    let pages = 0;
    const all = (async () => {
      for await (const _ of revealTokens(recovery, new Set(tokens))) pages++;
    })();
    await expect(all).rejects.toThrow("refused");
    expect(pages).toBe(1);
  });

  test("waits with what is still to be fetched, and fetches again", async () => {
    let waits = true;
    const { steps, recovery } = recorder({ refuse: (nth) => (nth === 1 && waits ? "VL031" : "") });
    const asked: (readonly string[])[] = [];
    const waiting: Recovery = {
      ...recovery,
      onWaiting: async (requests) => {
        asked.push(requests);
        waits = false;
      },
    };
    let pages = 0;
    for await (const _ of revealTokens(waiting, new Set(tokens))) pages++;
    expect({ pages, asked }).toEqual({ pages: 3, asked: [["1", "2"]] });
    expect(steps.slice(4)).toEqual(["fetch 0", "fetch 1", "fetch 1", "fetch 2"]);
  });
});

describe("a join", () => {
  const login = (
    n: number,
    ip: string | null,
    device: string | null,
    day?: string | null,
  ): Row => ({
    ...{
      user_id: `u${n}`,
      create_date: day === undefined ? "2026-01-01" : day,
      device_type: null,
      locale: null,
    },
    ...{ app_version: "2.3.0", masked_ip: ip, masked_device_id: device },
  });
  const all = async (recovery: Recovery) => {
    const logins: RevealedLogin[] = [];
    let largest = 0;
    const filter = { userId: null, since: "2026-01-01", until: null, tokens: null };
    const counts = await joinLogins(recovery, filter, async (page) => {
      logins.push(...page.logins);
      largest = Math.max(largest, page.logins.length);
    });
    return { logins, counts, largest };
  };

  test("of more tokens than it remembers puts each on record before it fetches the first, and shows each", async () => {
    const unknown = new Set([token("ip", 17)]);
    const { steps, requests, logins, recovery } = recorder({ unknown });
    // Addresses come again soon, late, and after they have been forgotten; devices hardly ever.
    const count = 6 * LOGINS_PER_PAGE + 123;
    for (let n = 0; n < count; n++) {
      logins.push(login(n, token("ip", (n * n) % 40_009), n % 3 ? token("dev", n) : null));
    }
    const shown = await all(recovery);
    expect(shown.largest).toBeLessThanOrEqual(LOGINS_PER_PAGE);
    expect(shown.logins).toHaveLength(count);
    for (const { maskedIp, ip, maskedDeviceId, deviceId } of shown.logins) {
      expect(ip).toBe(unknown.has(maskedIp!) ? null : `original of ${maskedIp} in 2026-01`);
      expect(deviceId).toBe(
        maskedDeviceId === null ? null : `original of ${maskedDeviceId} in 2026-01`,
      );
    }
    expect(shown.counts).toMatchObject({ logins: count, unopened: 0, unrecoverable: 0 });
    expect(shown.counts.unknown).toBeGreaterThan(0);
    const [last, first] = [steps.lastIndexOf("record"), steps.indexOf("fetch 0")];
    expect(steps.slice(last + 1, first)).toEqual(["all recorded"]);
    expect(steps.filter((step) => step.startsWith("fetch"))).toEqual(
      requests.map((_, nth) => `fetch ${nth}`),
    );
    const recorded = new Set(requests.flat());
    for (const row of logins) expect(recorded.has(String(row.masked_ip))).toBe(true);
    for (const one of requests) expect(one.length).toBeLessThanOrEqual(TOKENS_PER_REQUEST);
    // Some were forgotten and asked for again, most were not.
    expect(requests.flat().length).toBeGreaterThan(recorded.size);
  });

  test("shows each login the original of its own period, and asks for each token once", async () => {
    const { steps, requests, logins, recovery } = recorder({ expired: "2026-03" });
    const [device, other] = [token("dev", 1), token("dev", 2)];
    const days = ["2026-01-01", "2026-01-31", "2026-02-01", "2026-03-10", "2026-03-11", null];
    for (const [n, day] of days.entries()) logins.push(login(n, null, device, day));
    logins.splice(3, 0, login(9, null, other, "2026-02-28"));
    const { logins: shown, counts } = await all(recovery);
    const of = (one: string, when: string | null) => `original of ${one} in ${when}`;
    expect(shown.map(({ deviceId }) => deviceId)).toEqual([
      of(device, "2026-01"),
      of(device, "2026-01"),
      of(device, "2026-02"),
      of(other, "2026-02"),
      ...[null, null],
      of(device, null),
    ]);
    // A token is lost once, however many of its logins have lost it.
    expect(counts).toEqual({ logins: 7, unknown: 1, unopened: 0, unrecoverable: 0 });
    expect(requests).toEqual([[device, other]]);
    expect(steps).toEqual(["record", "all recorded", "fetch 0"]);
  });

  test("of a token that is remembered fetches from the request that named it, a period once", async () => {
    const { steps, requests, logins, recovery } = recorder();
    const device = token("dev", 1);
    const fill = (count: number, day: string) => {
      for (let n = 0; n < count; n++) logins.push(login(n, token("ip", logins.length), null, day));
    };
    logins.push(login(0, null, device, "2026-01-02"));
    fill(LOGINS_PER_PAGE - 1, "2026-01-02");
    for (const day of ["2026-01-09", "2026-02-09", "2026-02-10"]) {
      logins.push(login(0, null, device, day));
      fill(LOGINS_PER_PAGE - 1, day);
    }
    const { logins: shown } = await all(recovery);
    const ofDevice = shown.filter(({ maskedDeviceId }) => maskedDeviceId === device);
    expect(ofDevice.map(({ deviceId }) => deviceId?.slice(-7))).toEqual([
      ...["2026-01", "2026-01", "2026-02", "2026-02"],
    ]);
    expect(requests.map((asked) => asked.includes(device))).toEqual([true, false, false, false]);
    expect(steps.slice(5)).toEqual(["fetch 0", "fetch 1", "fetch 0", "fetch 2", "fetch 3"]);
  });

  test("asks for no token of generation 0, nor for what is none", async () => {
    const { requests, logins, recovery } = recorder();
    const erased = `ip0_${"a".repeat(26)}`;
    logins.push(login(1, erased, "an older system's"), login(2, token("ip", 1), null));
    const { counts, logins: shown } = await all(recovery);
    expect(requests).toEqual([[token("ip", 1)]]);
    expect(counts).toEqual({ logins: 2, unknown: 0, unopened: 0, unrecoverable: 2 });
    expect(shown[0]).toMatchObject({ maskedIp: erased, ip: null, deviceId: null, verified: null });
  });

  test("of no logins asks for nothing", async () => {
    const { steps, recovery } = recorder();
    expect((await all(recovery)).counts.logins).toBe(0);
    expect(steps).toEqual([]);
  });
});
