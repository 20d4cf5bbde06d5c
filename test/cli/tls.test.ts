// sslmode, as libpq means it: who the server is, is checked before anything is said to it.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { serverAccount } from "../../src/local/binaries.ts";
import type { Cluster } from "../../src/local/cluster.ts";
import { SCRATCH_PASSWORD } from "../support/scratch-cluster.ts";
import { startOwnCluster } from "../support/servers.ts";
import { type Run, veil } from "../support/veil.ts";

// Where the tool is missing, no certificate can be made.
const hasOpenssl = spawnSync("openssl", ["version"]).status === 0;

const SETTINGS = { fsync: "off", log_connections: "on", log_statement: "all" };

type Server = { readonly cluster: Cluster; readonly url: string };

let folder: string;
/** Its certificate is for `localhost`, and so not for 127.0.0.1. */
let named: Server;
/** Its certificate is for 127.0.0.1, and so not for `localhost`. */
let numbered: Server;
let plain: Server;

function openssl(...args: string[]): void {
  const done = spawnSync("openssl", args, { cwd: folder, encoding: "utf8" });
  if (done.status !== 0) throw new Error(`openssl ${args[0]}: ${done.stderr}`);
}

function makeAuthority(name: string): void {
  openssl(
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
    ...["-days", "2", "-subj", `/CN=${name}`, "-keyout", `${name}.key`, "-out", `${name}.crt`],
  );
}

async function startWithTls(subjectAltName: string): Promise<Server> {
  const name = subjectAltName.replace(/[^A-Za-z0-9]/g, "-");
  const [key, cert] = [join(folder, `${name}.key`), join(folder, `${name}.crt`)];
  writeFileSync(join(folder, "names"), `subjectAltName=${subjectAltName}\n`);
  openssl(
    ...["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
    ...["-subj", "/CN=server", "-keyout", key, "-out", "request"],
  );
  openssl(
    ...["x509", "-req", "-in", "request", "-CA", "authority.crt", "-CAkey", "authority.key"],
    ...["-CAcreateserial", "-days", "2", "-extfile", "names", "-out", cert],
  );
  chmodSync(key, 0o600);
  chmodSync(cert, 0o644);
  const account = serverAccount();
  if (account !== null) chownSync(key, account.uid, account.gid);
  return await startOwnCluster({ ...SETTINGS, ssl: "on", ssl_cert_file: cert, ssl_key_file: key });
}

beforeAll(async () => {
  if (!hasOpenssl) return;
  folder = mkdtempSync(join(tmpdir(), "veil-tls-"));
  // The server's own account reads its key in there.
  chmodSync(folder, 0o755);
  makeAuthority("authority");
  makeAuthority("stranger");
  named = await startWithTls("DNS:localhost");
  numbered = await startWithTls("IP:127.0.0.1");
  plain = await startOwnCluster(SETTINGS);
});
afterAll(() => {
  if (hasOpenssl) rmSync(folder, { recursive: true, force: true });
});

/** The superuser's URL by another host name, with libpq's parameters. */
function url(server: Server, host: string, parameters: Record<string, string>): string {
  const changed = new URL(server.url);
  changed.hostname = host;
  for (const [name, value] of Object.entries(parameters)) changed.searchParams.set(name, value);
  return changed.href;
}

const authority = (): string => join(folder, "authority.crt");
const stranger = (): string => join(folder, "stranger.crt");
const migrate = (to: string, env: Record<string, string> = {}): Promise<Run> =>
  veil(["migrate"], { env: { ...env, DATABASE_URL: to } });

/** Runs one at a time, so that what the log gained belongs to it. */
async function expectRefused(
  server: Server,
  host: string,
  parameters: Record<string, string>,
  message: RegExp,
): Promise<void> {
  const { log } = server.cluster;
  const before = readFileSync(log, "utf8").length;
  const run = await migrate(url(server, host, parameters));
  expect(run.stdout).toBe("");
  expect(run.stderr).toMatch(/^error: [^\n]+\nhint: [^\n]+\n$/);
  expect(run.stderr).toMatch(message);
  expect(run.stderr).not.toContain(SCRATCH_PASSWORD);
  expect(run.code).toBe(1);
  // Neither login nor password nor statement was sent to whoever that was.
  expect(readFileSync(log, "utf8").slice(before)).not.toMatch(
    /connection auth|statement:|execute|database "|user=/,
  );
}

async function expectWorks(to: string, env?: Record<string, string>) {
  const run = await migrate(to, env);
  expect({ code: run.code, stderr: run.stderr }).toEqual({ code: 0, stderr: "" });
}

function usedTls(): boolean {
  const { log } = named.cluster;
  const lines = readFileSync(log, "utf8").split("\n");
  return (
    lines.findLast((line) => line.includes("connection authorized"))?.includes("SSL enabled") ??
    false
  );
}

const REFUSED = /the TLS certificate of the database at [^ ]+ was refused/;

test.skipIf(!hasOpenssl)(
  "verify-full: the right authority and the right name are let in",
  async () => {
    const parameters = { sslmode: "verify-full", sslrootcert: authority() };
    await expectWorks(url(named, "localhost", parameters));
    expect(usedTls()).toBe(true);
    await expectWorks(url(named, "localhost", {}), {
      PGSSLMODE: "verify-full",
      PGSSLROOTCERT: authority(),
    });
    expect(usedTls()).toBe(true);
  },
);

test.skipIf(!hasOpenssl)("verify-full: a certificate for another name is refused", async () => {
  const parameters = { sslmode: "verify-full", sslrootcert: authority() };
  await expectRefused(named, "127.0.0.1", parameters, REFUSED);
});

test.skipIf(!hasOpenssl)("verify-full: an address is a name like any other", async () => {
  const parameters = { sslmode: "verify-full", sslrootcert: authority() };
  await expectWorks(url(numbered, "127.0.0.1", parameters));
  await expectRefused(numbered, "localhost", parameters, REFUSED);
});

test.skipIf(!hasOpenssl)(
  "an unknown authority is refused, with verify-full and with verify-ca",
  async () => {
    for (const parameters of [
      { sslmode: "verify-full", sslrootcert: stranger() },
      { sslmode: "verify-full", sslrootcert: "system" },
      { sslmode: "verify-ca", sslrootcert: stranger() },
    ]) {
      await expectRefused(named, "localhost", parameters, REFUSED);
    }
    const weaker = { sslmode: "verify-ca", sslrootcert: "system" };
    const run = await migrate(url(named, "localhost", weaker));
    expect({ code: run.code, stdout: run.stdout }).toEqual({ code: 2, stdout: "" });
    expect(run.stderr).toMatch(/^error: sslrootcert=system [^\n]*\nhint: /);
  },
);

test.skipIf(!hasOpenssl)("verify-ca: the name does not matter, the authority does", async () => {
  const parameters = { sslmode: "verify-ca", sslrootcert: authority() };
  await expectWorks(url(named, "127.0.0.1", parameters));
  expect(usedTls()).toBe(true);
});

test.skipIf(!hasOpenssl)(
  "require encrypts without verifying, unless an authority is given",
  async () => {
    await expectWorks(url(named, "127.0.0.1", { sslmode: "require" }));
    expect(usedTls()).toBe(true);
    await expectWorks(url(named, "127.0.0.1", { sslmode: "require", sslrootcert: authority() }));
    const parameters = { sslmode: "require", sslrootcert: stranger() };
    await expectRefused(named, "127.0.0.1", parameters, REFUSED);
  },
);

test.skipIf(!hasOpenssl)(
  "disable and prefer do as they say, on the loopback interface",
  async () => {
    await expectWorks(url(named, "127.0.0.1", { sslmode: "disable" }));
    expect(usedTls()).toBe(false);
    await expectWorks(url(named, "127.0.0.1", {}));
    await expectWorks(url(plain, "127.0.0.1", {}));
  },
);

test.skipIf(!hasOpenssl)("a server without TLS is refused where TLS was asked for", async () => {
  for (const parameters of [
    { sslmode: "verify-full", sslrootcert: authority() },
    { sslmode: "require" },
  ]) {
    await expectRefused(plain, "localhost", parameters, /TLS|SSL/);
  }
});

test.skipIf(!hasOpenssl)(
  "a certificate file that is missing is named by its parameter",
  async () => {
    const parameters = { sslmode: "verify-full", sslrootcert: join(folder, "no-such.crt") };
    const run = await migrate(url(named, "localhost", parameters));
    expect(run.code).toBe(2);
    expect(run.stderr).toMatch(/^error: sslrootcert[^\n]*ENOENT[^\n]*\nhint: /);
  },
);
