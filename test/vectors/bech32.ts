// Bech32 (BIP 173) written a second time, so that what the vectors say about recipients does not rest
// on the library that veil reads them with. It also writes what a good encoder refuses to write.
const CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const GENERATOR = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3] as const;
/** The checksum's constant; bech32m (BIP 350) has another one. */
const BECH32 = 1;
export const BECH32M = 0x2bc830a3;

function polymod(words: readonly number[]): number {
  let check = 1;
  for (const word of words) {
    const top = check >>> 25;
    check = ((check & 0x1ffffff) << 5) ^ word;
    for (const [i, generator] of GENERATOR.entries()) if ((top >> i) & 1) check ^= generator;
  }
  return check >>> 0;
}

const expandPrefix = (prefix: string): number[] => {
  const codes = Array.from(prefix, (c) => c.charCodeAt(0));
  return [...codes.map((code) => code >> 5), 0, ...codes.map((code) => code & 31)];
};

/** Bytes as five-bit words, the last one filled up with zeros. */
export function toWords(bytes: Uint8Array): number[] {
  const bits = Array.from(bytes, (byte) => byte.toString(2).padStart(8, "0")).join("");
  return (bits.match(/.{1,5}/g) ?? []).map((word) => Number.parseInt(word.padEnd(5, "0"), 2));
}

/** A prefix in lower case and any five-bit words, with a valid checksum. */
export function encodeWords(prefix: string, words: readonly number[], constant = BECH32): string {
  const rest = polymod([...expandPrefix(prefix), ...words, 0, 0, 0, 0, 0, 0]) ^ constant;
  const checksum = [25, 20, 15, 10, 5, 0].map((shift) => (rest >>> shift) & 31);
  return `${prefix}1${[...words, ...checksum].map((word) => CHARSET[word]).join("")}`;
}

export const encodeBech32 = (prefix: string, bytes: Uint8Array): string =>
  encodeWords(prefix, toWords(bytes));

/** The words of a text in the charset: what `age1` can be made to begin with. */
export const wordsOf = (text: string): number[] => Array.from(text, (c) => CHARSET.indexOf(c));
