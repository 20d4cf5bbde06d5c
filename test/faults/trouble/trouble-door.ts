// A TCP door in front of a server, for what a proxy that reads the protocol does not count: connections that
// are accepted and closed at once, as by a balancer that has lost its server.
import { connect, type Socket } from "node:net";
import { listen, portOf } from "../proxies/listen.ts";

export type Door = {
  readonly port: number;
  /** From now on, also for the connections that are open. */
  readonly close: () => void;
  readonly open: () => void;
  /** Accepted while closed. */
  readonly turnedAway: () => number;
  readonly stop: () => void;
};

export async function startDoor(port: number): Promise<Door> {
  let isOpen = true;
  let turnedAway = 0;
  const sockets = new Set<Socket>();
  const dropAll = () => {
    for (const socket of sockets) socket.destroy();
  };
  const listener = await listen(0, (client) => {
    client.on("error", () => {});
    if (!isOpen) {
      turnedAway++;
      // Read, and closed in good order: a driver cannot tell that from a server's own end.
      client.once("data", () => client.end());
      return;
    }
    const server = connect(port, "127.0.0.1");
    server.on("error", () => {});
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      sockets.add(from);
      from.on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  });
  return {
    port: portOf(listener),
    close: () => {
      isOpen = false;
      dropAll();
    },
    open: () => {
      isOpen = true;
    },
    turnedAway: () => turnedAway,
    stop: () => {
      listener.close();
      dropAll();
    },
  };
}
