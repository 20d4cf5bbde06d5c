// Which login of the embedded default a command gets: the one that holds what it needs, and no more.
import { expect, test } from "bun:test";
import { LOGINS, loginWith, type Role } from "../../src/local/logins.ts";

test("a command that needs no role is the owner's", () => {
  expect(loginWith([])).toBe("postgres");
});

test("logins joined with their originals: by the usual way, and by break-glass", () => {
  expect(loginWith(["veil_analyst", "veil_revealer"])).toBe("local_investigator");
  expect(loginWith(["veil_analyst", "veil_breakglass"])).toBe("local_breakglass_investigator");
});

test("each login is the one for exactly its roles", () => {
  for (const [login, roles] of Object.entries(LOGINS)) {
    expect(loginWith(roles)).toBe(login as keyof typeof LOGINS);
  }
  const nobodys: Role[] = ["veil_etl", "veil_revealer"];
  expect(() => loginWith(nobodys)).toThrow("veil_etl and veil_revealer");
});
