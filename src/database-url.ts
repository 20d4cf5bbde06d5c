// DATABASE_URL → how to connect, as libpq reads such a URL, with one stricter default: a host that is not
// loopback must prove with a certificate who it is.
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import type { DatabaseConfig, Tls } from "./database.ts";
import { misuse } from "./failure.ts";

/** libpq's own variables (PGHOST, PGSSLMODE, …), for what the URL leaves out. */
type Defaults = Readonly<Record<string, string | undefined>>;

export const DATABASE_URL_EXPECTED = "expected postgres://user:password@host:port/database";

const malformed = () => misuse("DATABASE_URL is malformed", DATABASE_URL_EXPECTED);

const PARAMETERS = [
  ...["sslmode", "sslrootcert", "sslcert", "sslkey"],
  ...["host", "application_name", "connect_timeout"],
];

/** Throws a misuse that repeats no part of the URL: it holds the password. */
export function parseDatabaseUrl(text: string, env: Defaults): DatabaseConfig {
  if (!/^postgres(ql)?:\/\//.test(text) || !URL.canParse(text)) throw malformed();
  const url = new URL(text);
  const unknown = [...url.searchParams.keys()].find((name) => !PARAMETERS.includes(name));
  if (unknown !== undefined) {
    throw misuse(
      "DATABASE_URL has a parameter that veil does not know",
      `known are ${PARAMETERS.join(", ")}`,
    );
  }
  const host = decode(url.hostname) || url.searchParams.get("host") || env.PGHOST || "localhost";
  const port = Number(url.port || env.PGPORT || 5432);
  const user = decode(url.username) || env.PGUSER;
  const name = decode(url.pathname.slice(1)) || env.PGDATABASE || user;
  const timeout = Number(url.searchParams.get("connect_timeout") || 10);
  if (!user || !name || host.includes(",") || !Number.isInteger(timeout) || timeout < 1) {
    throw malformed();
  }
  const isSocket = host.startsWith("/");
  return {
    host,
    port,
    socket: isSocket ? `${host}/.s.PGSQL.${port}` : null,
    database: name,
    user,
    password: decode(url.password) || env.PGPASSWORD || null,
    tls: isSocket ? false : tls(env, url, host),
    applicationName: url.searchParams.get("application_name") || "veil",
    connectTimeoutSeconds: timeout,
  };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text).replace(/^\[(.*)\]$/, "$1");
  } catch {
    throw malformed();
  }
}

/**
 * libpq's sslmode, with a stricter default: a host that is not loopback must prove who it is. As in
 * libpq, `require` does not verify unless a root certificate is given.
 */
function tls(env: Defaults, url: URL, host: string): Tls {
  const parameter = (name: string, variable: string) =>
    url.searchParams.get(name) || env[variable] || null;
  const mode = parameter("sslmode", "PGSSLMODE") ?? (isLoopback(host) ? "prefer" : "verify-full");
  const root = parameter("sslrootcert", "PGSSLROOTCERT");
  const cert = parameter("sslcert", "PGSSLCERT");
  const key = parameter("sslkey", "PGSSLKEY");
  const files = {
    ca:
      root === null
        ? defaultRoot()
        : root === "system"
          ? null
          : readCertificate(root, "sslrootcert"),
    cert: cert === null ? null : readCertificate(cert, "sslcert"),
    key: key === null ? null : readCertificate(key, "sslkey"),
  };
  switch (mode) {
    case "disable":
      return false;
    case "allow":
    case "prefer":
      return "prefer";
    case "require": {
      const verified = files.ca !== null;
      return { ...files, rejectUnauthorized: verified, checkHostName: false };
    }
    case "verify-ca":
      return { ...files, rejectUnauthorized: true, checkHostName: false };
    case "verify-full":
      return { ...files, rejectUnauthorized: true, checkHostName: true };
    default:
      throw misuse(
        "sslmode is not one that libpq knows",
        "expected disable, allow, prefer, require, verify-ca or verify-full",
      );
  }
}

const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || /^127(\.[0-9]{1,3}){3}$/.test(host);

/** ~/.postgresql/root.crt as libpq; the platform's own authorities where there is none. */
function defaultRoot(): string | null {
  try {
    return readFileSync(`${homedir()}/.postgresql/root.crt`, "utf8");
  } catch {
    return null;
  }
}

function readCertificate(path: string, name: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unreadable";
    throw misuse(`${name}: cannot read the file that it names (${code})`, "check path and mode");
  }
}
