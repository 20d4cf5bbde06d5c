// Asks a PostgreSQL server whether it speaks TLS, and nothing else.
import { connect } from "node:net";

const SSL_REQUEST = Uint8Array.of(0, 0, 0, 8, 4, 210, 22, 47); // length, and the code 80877103
const PATIENCE_MS = 2_000;

/** True or false as the server says; null if it does not answer. */
export function offersTls(host: string, port: number): Promise<boolean | null> {
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
    // Anything but S or N: a server too busy to answer that, which says so.
    socket.once("data", (data) => answer({ 83: true, 78: false }[data[0] ?? 0] ?? null));
  });
}
