// What a person may be told. Every message that leaves the program is one of these: what happened, and
// what to do next. Anything else that is thrown is a defect, and is reported without its details.

/** 1: failed or refused. 2: wrong usage or configuration. */
export type FailureCode = 1 | 2;

export class Failure extends Error {
  readonly exitCode: FailureCode;
  readonly hint: string | null;
  /** Set where a caller branches on it: an SQLSTATE, for one. */
  readonly code: string | null;

  constructor(
    exitCode: FailureCode,
    message: string,
    hint: string | null = null,
    code: string | null = null,
  ) {
    super(message);
    this.name = "Failure";
    this.exitCode = exitCode;
    this.hint = hint;
    this.code = code;
  }
}

/** Wrong usage or configuration: nothing was started. */
export const misuse = (message: string, hint?: string): Failure => new Failure(2, message, hint);

/** Something that was asked for, rightly, and failed or was refused. */
export const failed = (message: string, hint?: string): Failure => new Failure(1, message, hint);

/** Whether it is a failure with this code. */
export const hasCode = (error: unknown, code: string): error is Failure =>
  error instanceof Failure && error.code === code;

/** A person pressed Ctrl-C, or SIGTERM came: what was begun is put away, and nothing more is said. */
export class Interrupted extends Error {}
