import { expect, test } from "bun:test";
import { native } from "../../src/keys/native.ts";
import { javaScript } from "../../vault/primitives.ts";

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

test("the platform's AES opens what JavaScript's has sealed, and nothing with a bit of it changed", () => {
  for (const length of LENGTHS) {
    const [key, nonce, additionalData] = [random(32), random(12), random(length % 77)] as const;
    const plaintext = random(Math.min(length, 60_000));
    const encrypted = javaScript.encrypt(key, nonce, additionalData, plaintext);
    const opened = native.decrypt(key, nonce, additionalData, encrypted);
    expect(Buffer.from(opened)).toEqual(Buffer.from(plaintext));
    for (const at of [0, encrypted.length >> 1, encrypted.length - 16, encrypted.length - 1]) {
      const altered = Uint8Array.from(encrypted);
      altered[at]! ^= 1;
      expect(() => native.decrypt(key, nonce, additionalData, altered)).toThrow();
    }
    expect(() => native.decrypt(key, nonce, random(20), encrypted)).toThrow();
    for (const left of [0, 15]) {
      const cut = encrypted.subarray(0, left);
      expect(() => native.decrypt(key, nonce, additionalData, cut)).toThrow();
    }
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
