// Keys of a test's own, as the variables that veil reads.
import { generateIdentity } from "../../vault/age.ts";
import { deriveSubkeys, formatKey, generateTokenKey } from "../../vault/keys.ts";

export type TestKeys = {
  readonly VEIL_TOKEN_KEY: string;
  readonly VEIL_VERIFY_KEY: string;
  readonly VEIL_IDENTITY: string;
  readonly VEIL_RECIPIENTS: string;
};

export async function makeKeys(generation = 1): Promise<TestKeys> {
  const tokenKey = generateTokenKey(generation);
  const { identity, recipient } = await generateIdentity("classic");
  return {
    VEIL_TOKEN_KEY: formatKey(tokenKey),
    VEIL_VERIFY_KEY: formatKey({ generation, bytes: deriveSubkeys(tokenKey).verify }),
    VEIL_IDENTITY: identity,
    VEIL_RECIPIENTS: recipient,
  };
}
