// A run that is to go on for ever waits for its servers from the start.
import { Interrupted } from "../failure.ts";
import { isOutage } from "../postgres/errors.ts";
import { isQueueOutage } from "../sqs/errors.ts";
import { Availability, type Notice } from "./availability.ts";

/** Tries `work` until no server is away. Throws `Interrupted` when `signal` aborts meanwhile. */
export async function waitForServers<T>(
  work: () => Promise<T>,
  tell: (notice: Notice) => void,
  signal: AbortSignal,
): Promise<T> {
  const patience = { milliseconds: Number.POSITIVE_INFINITY, signal };
  const available = new Availability("the server can be reached", patience, tell);
  for (;;) {
    try {
      const done = await work();
      available.worked();
      return done;
    } catch (error) {
      if (!isOutage(error) && !isQueueOutage(error)) throw error;
      await available.pause(error).catch(() => {
        throw new Interrupted();
      });
    }
  }
}
