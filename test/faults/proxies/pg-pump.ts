// One direction of a connection: whole messages to a handler, one after the other, and in the end what is
// left of a message and the end itself.
import type { Socket } from "node:net";
import type { Frames } from "./pg-wire.ts";

export type Ends = {
  readonly from: Socket;
  readonly to: Socket;
  readonly isCut: () => boolean;
  readonly ended: () => void;
};

export function pump(
  { from, to, isCut, ended }: Ends,
  frames: Frames,
  handle: (message: Buffer) => Promise<void>,
): void {
  let running = false;
  let over = false;
  const run = async () => {
    if (running) return;
    running = true;
    for (let next = frames.next(); next !== null && !isCut(); next = frames.next()) {
      await handle(next);
    }
    running = false;
    if (!over || isCut()) return;
    to.write(frames.rest());
    to.end();
    ended();
  };
  const end = () => {
    over = true;
    void run();
  };
  from.on("data", (chunk: Buffer) => {
    frames.push(chunk);
    void run();
  });
  from.on("end", end);
  from.on("close", end); // a reset has no other end
  from.on("error", () => {});
}
