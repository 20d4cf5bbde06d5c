import { expect, test } from "bun:test";
import { native } from "../src/native.ts";
import { javaScript } from "../vault/primitives.ts";

const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));
const LENGTHS = [0, 1, 15, 16, 17, 63, 64, 65, 1000, 100_000];

test("the platform's AES makes the bytes that JavaScript's does", () => {
  for (const length of LENGTHS) {
    const inputs = [random(32), random(12), random(length % 77), new Uint8Array(length)] as const;
    const encrypted = native.encrypt(...inputs);
    expect(encrypted).toHaveLength(length + 16);
    expect(Buffer.from(encrypted)).toEqual(Buffer.from(javaScript.encrypt(...inputs)));
  }
});

test("the platform's HMAC makes the bytes that JavaScript's does", () => {
  for (const length of LENGTHS) {
    const [key, data] = [random(32), new Uint8Array(length)];
    // Twice, because a keyed state is kept.
    for (let time = 0; time < 2; time++) {
      expect(Buffer.from(native.hmac(key, data))).toEqual(Buffer.from(javaScript.hmac(key, data)));
    }
  }
});
