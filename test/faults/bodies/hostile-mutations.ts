// What becomes of a message on a bad day: bits that flip, pieces that are lost, doubled, moved, or taken
// from another one. On the bytes, then read again as UTF-8, since SQS carries text and nothing else.
import type { Random } from "./hostile-random.ts";

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

export function mutate(r: Random, body: string, other: string): string {
  let bytes = Buffer.from(body);
  for (let times = r.magnitude(4); times > 0; times--) bytes = mutateOnce(r, bytes, other);
  return decoder.decode(bytes);
}

function mutateOnce(r: Random, bytes: Buffer<ArrayBuffer>, other: string): Buffer<ArrayBuffer> {
  if (bytes.length === 0) return Buffer.from(other);
  const at = r.below(bytes.length);
  const end = Math.min(bytes.length, at + r.magnitude(200));
  const piece = bytes.subarray(at, end);
  const replaced = (middle: Uint8Array, from = at, to = at + 1) =>
    Buffer.concat([bytes.subarray(0, from), middle, bytes.subarray(to)]);
  switch (r.below(9)) {
    case 0:
      return replaced(Buffer.of(bytes[at]! ^ (1 << r.below(8))));
    case 1:
      return replaced(Buffer.of(r.below(256)));
    case 2:
      return replaced(Buffer.from(r.pick([...'{}[]":,\\/ue0-.\n'])), at, at);
    case 3:
      return replaced(Buffer.of(), at, end);
    case 4:
      return replaced(piece, at, at);
    case 5:
      return Buffer.from(bytes.subarray(0, at));
    case 6:
      return Buffer.from(bytes.subarray(at));
    case 7:
      return replaced(piece.reverse(), at, end);
    default: {
      const donor = Buffer.from(other);
      const from = r.below(donor.length + 1);
      return replaced(donor.subarray(from, from + r.magnitude(200)), at, end);
    }
  }
}
