// What a configuration is refused with: it names the variable, says what to do, and repeats no value.
import { expect } from "bun:test";
import { Failure } from "../../src/failure.ts";

/** A value that no message may hold. */
export const CANARY = "kanarienvogel";

/** What `read` throws, which must be a refusal by configuration. */
export function refusal(read: () => unknown): Failure {
  try {
    read();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    expect(error.exitCode).toBe(2);
    return error;
  }
  throw new Error("expected a refusal, nothing was thrown");
}

/** A refusal that says which variable is meant, and nothing of what it holds. */
export function expectRefused(name: string, read: () => unknown): Failure {
  const failure = refusal(read);
  expect(failure.message).toContain(name);
  expect(failure.hint ?? "").not.toBe("");
  expect(`${failure.message}\n${failure.hint}\n${failure.stack}`).not.toContain(CANARY);
  return failure;
}
