// What `veil forget` and `veil expire` share. An erasure that was sent may be done, however the
// command ends. So its answer is waited for, and the receipt's file never says less than is known.
import { closeSync, ftruncateSync, openSync, rmSync, writeSync } from "node:fs";
import { isUnanswered, WHETHER_IT_WAS_DONE } from "../erasure/forget.ts";
import { failed, Interrupted } from "../failure.ts";
import type { Context } from "./servers.ts";

export const DRY_RUN = "nothing was erased: this was a dry run\n";

/**
 * Ctrl-C ends the command as long as nothing was sent. After that, the first Ctrl-C prints
 * `waiting`, and the command waits for the answer.
 */
export function withPatience(context: Context, waiting: string) {
  const ending = new AbortController();
  let isSent = false;
  const end = () => {
    if (isSent) context.terminal.err(waiting);
    else ending.abort();
  };
  if (context.interrupt.aborted) end();
  else context.interrupt.addEventListener("abort", end, { once: true });
  return {
    interruptible: { ...context, interrupt: ending.signal },
    uninterrupted: async <T>(work: () => Promise<T>): Promise<T> => {
      if (ending.signal.aborted) throw new Interrupted();
      isSent = true;
      return await work();
    },
  };
}

type Receipted = { readonly entry: number; readonly written: object };

/**
 * Runs `work`, and writes its receipt to the file. The file is made before anything is erased, and
 * removed where nothing was. Without a path, there is no file.
 */
export async function withReceipt<T extends Receipted>(
  path: string | null,
  work: () => Promise<T>,
): Promise<T> {
  if (path === null) return await work();
  const file = begin(path);
  let result: T;
  try {
    result = await work();
  } catch (error) {
    closeSync(file);
    if (!isUnanswered(error)) rmSync(path, { force: true });
    throw error;
  }
  try {
    ftruncateSync(file);
    writeSync(file, `${JSON.stringify(result.written)}\n`, 0);
    closeSync(file);
  } catch (error) {
    throw failed(
      `erased, but the receipt's file could not be written (${codeOf(error)})`,
      `the receipt stands in entry ${result.entry} of the audit`,
    );
  }
  return result;
}

/** The file, with a note that stays there if this process ends before the answer comes. */
function begin(path: string): number {
  let file: number | null = null;
  try {
    file = openSync(path, "wx", 0o600);
    const unanswered = {
      erasure: null,
      asked: new Date().toISOString(),
      note: `no answer came: ${WHETHER_IT_WAS_DONE}`,
    };
    writeSync(file, `${JSON.stringify(unanswered)}\n`);
    return file;
  } catch (error) {
    if (file !== null) rmSync(path, { force: true });
    throw failed(
      `the receipt's file cannot be made (${codeOf(error)}); nothing was erased`,
      "name a file that does not exist yet, in a folder that does",
    );
  }
}

const codeOf = (error: unknown): string => (error as { code?: string }).code ?? "unknown";
