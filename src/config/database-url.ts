// DATABASE_URL → how to connect. It is read as libpq reads it, with one stricter default: a host
// that is not loopback must prove with a certificate who it is.
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { misuse } from "../failure.ts";
import { type Environment, malformed, requireVariable } from "./environment.ts";

export type DatabaseConfig = {
  readonly host: string;
  readonly port: number;
  readonly socket: string | null;
  readonly database: string;
  readonly user: string;
  readonly password: string | null;
  readonly tls: Tls;
  readonly applicationName: string;
  readonly connectTimeoutSeconds: number;
};

/** `prefer`: TLS where the server offers it, without looking at its certificate. */
export type Tls = false | "prefer" | TlsOptions;
export type TlsOptions = {
  readonly rejectUnauthorized: boolean;
  readonly checkHostName: boolean;
  readonly ca: string | null;
  readonly cert: string | null;
  readonly key: string | null;
};

/** libpq takes these in the query of the URL too, and there they win over the rest of it. */
const PARAMETERS = [
  "host",
  "port",
  "user",
  "password",
  "dbname",
  "sslmode",
  "sslrootcert",
  "sslcert",
  "sslkey",
  "application_name",
  "connect_timeout",
] as const;
type Parameter = (typeof PARAMETERS)[number];

export const readDatabase = (env: Environment): DatabaseConfig =>
  parseDatabaseUrl(requireVariable(env, "DATABASE_URL"), env);

/**
 * `env`: libpq's own variables (PGHOST, PGSSLMODE, …) fill in what the URL leaves out. What this
 * throws repeats no part of the URL: it holds the password.
 */
function parseDatabaseUrl(text: string, env: Environment): DatabaseConfig {
  // libpq allows a user without a host (user@/database), which is no URL to the platform.
  const complete = text.replace(/^([a-z]+:\/\/[^/?#@]*@)(?=[/?]|$)/, "$1localhost");
  if (!/^postgres(ql)?:\/\//.test(complete) || !URL.canParse(complete))
    throw malformed("DATABASE_URL");
  const url = new URL(complete);
  const parameters = readParameters(url);
  const read = (parameter: Parameter, part: string, variable: string): string | null =>
    parameters.get(parameter) || decode(part) || env[variable] || null;
  const host = read("host", url.hostname, "PGHOST") ?? "localhost";
  const port = read("port", url.port, "PGPORT") ?? "5432";
  const user = read("user", url.username, "PGUSER");
  const name = read("dbname", url.pathname.slice(1), "PGDATABASE") ?? user;
  const timeout = parameters.get("connect_timeout") || "10";
  if (user === null || name === null) throw malformed("DATABASE_URL");
  if (host.includes(",")) {
    throw misuse("DATABASE_URL names several hosts", "give one: veil does not choose among them");
  }
  if (!/^[1-9][0-9]{0,4}$/.test(port) || Number(port) > 65535) {
    throw misuse("the port of DATABASE_URL, or PGPORT, is malformed", "expected 1 to 65535");
  }
  if (!/^[1-9][0-9]{0,3}$/.test(timeout)) {
    throw misuse("connect_timeout in DATABASE_URL is malformed", "expected seconds, 1 to 9999");
  }
  const isSocket = host.startsWith("/");
  return {
    host,
    port: Number(port),
    socket: isSocket ? `${host}/.s.PGSQL.${port}` : null,
    database: name,
    user,
    password: read("password", url.password, "PGPASSWORD"),
    tls: isSocket ? false : tls(env, parameters, host),
    applicationName: parameters.get("application_name") || "veil",
    connectTimeoutSeconds: Number(timeout),
  };
}

function readParameters(url: URL): Map<Parameter, string> {
  // A plus is a plus to libpq, and a space to the platform.
  const search = new URLSearchParams(url.search.replaceAll("+", "%2B"));
  const parameters = new Map<Parameter, string>();
  for (const [name, value] of search) {
    const known = PARAMETERS.find((parameter) => parameter === name);
    if (known === undefined) {
      throw misuse(
        "DATABASE_URL has a parameter that veil does not know",
        `known are ${PARAMETERS.join(", ")}`,
      );
    }
    parameters.set(known, value);
  }
  return parameters;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text).replace(/^\[(.*)\]$/, "$1");
  } catch {
    throw malformed("DATABASE_URL");
  }
}

/**
 * libpq's sslmode, with the stricter default. As in libpq, `require` verifies the certificate only
 * where a root certificate is there.
 */
function tls(env: Environment, parameters: Map<Parameter, string>, host: string): Tls {
  const read = (parameter: Parameter, variable: string) =>
    parameters.get(parameter) || env[variable] || null;
  const root = read("sslrootcert", "PGSSLROOTCERT");
  const usual = isLoopback(host) && root !== "system" ? "prefer" : "verify-full";
  const mode = read("sslmode", "PGSSLMODE") ?? usual;
  if (!/^(disable|allow|prefer|require|verify-ca|verify-full)$/.test(mode)) {
    throw misuse(
      "sslmode (DATABASE_URL, or PGSSLMODE) is not one that libpq knows",
      "expected disable, allow, prefer, require, verify-ca or verify-full",
    );
  }
  if (root === "system" && mode !== "verify-full") {
    // Anybody can get a certificate of a public authority. Without the host's name it proves
    // nothing.
    throw misuse(
      "sslrootcert=system (DATABASE_URL, or PGSSLROOTCERT) needs sslmode=verify-full",
      "leave sslmode out, or name the file of your own authority",
    );
  }
  if (mode === "disable") return false;
  if (mode === "allow" || mode === "prefer") return "prefer";
  const certificate = (path: string | null, name: string) =>
    path === null ? null : readCertificate(path, name);
  const ca = root === "system" ? null : (certificate(root, "sslrootcert") ?? defaultRoot());
  return {
    ca,
    cert: certificate(read("sslcert", "PGSSLCERT"), "sslcert"),
    key: certificate(read("sslkey", "PGSSLKEY"), "sslkey"),
    rejectUnauthorized: mode !== "require" || ca !== null,
    checkHostName: mode === "verify-full",
  };
}

const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || /^127(\.[0-9]{1,3}){3}$/.test(host);

/**
 * ~/.postgresql/root.crt, as libpq. Null where there is none: the platform's own authorities count.
 */
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
    throw misuse(
      `${name} (DATABASE_URL, or PG${name.toUpperCase()}): cannot read its file (${code})`,
      "check path and mode",
    );
  }
}
