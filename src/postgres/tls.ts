// TLS to PostgreSQL: what the driver is told, and why a server that offers none is not merely
// unreachable.
import { connect, isIP } from "node:net";
import type { DatabaseConfig } from "../config/database-url.ts";
import { failed } from "../failure.ts";
import { isOutage } from "./errors.ts";

export function tlsOptions(config: DatabaseConfig) {
  if (typeof config.tls !== "object") return config.tls;
  const { rejectUnauthorized, checkHostName, ca, cert, key } = config.tls;
  return {
    rejectUnauthorized,
    // An address is no server name to TLS; the certificate is held against it all the same.
    ...(isIP(config.host) === 0 ? { servername: config.host } : { host: config.host }),
    ...(checkHostName ? {} : { checkServerIdentity: () => undefined }),
    ...(ca === null ? {} : { ca }),
    ...(cert === null ? {} : { cert }),
    ...(key === null ? {} : { key }),
  };
}

/**
 * The error, or a better one where the server offers no TLS. The driver goes on with the handshake
 * after a server has declined it and reports a reset connection, so a person would look for a
 * server that is not up.
 */
export async function withoutTls(error: unknown, config: DatabaseConfig): Promise<unknown> {
  if (typeof config.tls !== "object" || !isOutage(error)) return error;
  if ((await offersTls(config.host, config.port)) !== false) return error;
  return failed(
    `the database at ${config.host}:${config.port} offers no TLS, which sslmode asks for`,
    "turn ssl on there; on a network that nobody else is on, sslmode=disable in DATABASE_URL",
  );
}

const SSL_REQUEST = Uint8Array.of(0, 0, 0, 8, 4, 210, 22, 47); // length, and the code 80877103
const PATIENCE_MS = 2_000;

/** True or false as the server says; null if it does not answer. */
function offersTls(host: string, port: number): Promise<boolean | null> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const answer = (offers: boolean | null) => {
      socket.destroy();
      resolve(offers);
    };
    socket.setTimeout(PATIENCE_MS, () => answer(null));
    socket.once("error", () => answer(null));
    socket.once("close", () => answer(null));
    socket.once("connect", () => socket.write(SSL_REQUEST));
    // S or N. Anything else is from a server that is too busy to answer.
    socket.once("data", (data) => answer({ 83: true, 78: false }[data[0] ?? 0] ?? null));
  });
}
