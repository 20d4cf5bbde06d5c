// What a person is told went wrong. Each message says what happened and what to do next. Anything
// else that is thrown is a defect of the program, and is reported without its details.

/** 1: failed or refused. 2: wrong usage or configuration. */
export type FailureCode = 1 | 2;

export class Failure extends Error {
  readonly exitCode: FailureCode;
  readonly hint: string | null;
  /** What a caller can branch on: an SQLSTATE, or the code of a connection error. */
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

/** The command was right, but failed or was refused. */
export const failed = (message: string, hint?: string): Failure => new Failure(1, message, hint);

/** Whether it is a failure with this code. */
export const hasCode = (error: unknown, code: string): error is Failure =>
  error instanceof Failure && error.code === code;

/** Ctrl-C or SIGTERM: the command puts away what it has begun, and prints nothing more. */
export class Interrupted extends Error {}
