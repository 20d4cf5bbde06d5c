// What `veil forget` and `veil expire` share: an answer that is waited for, because what was sent may be done
// however this ends, and a question that only yes answers.

import { failed, Interrupted } from "../failure.ts";
import type { LocalLogin } from "../local/local-database.ts";
import type { Terminal } from "../terminal/terminal.ts";
import type { Context } from "./session.ts";

export const ERASER: { readonly login: LocalLogin; readonly variables: [] } = {
  login: "local_eraser",
  variables: [],
};

/** Until something is sent, Ctrl-C ends all; then the first one says `waiting`, and the answer is waited for. */
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

export const isAtTerminal = ({ isStdinTerminal, isStderrTerminal }: Terminal): boolean =>
  isStdinTerminal && isStderrTerminal;

export async function confirm(terminal: Terminal, question: string): Promise<void> {
  if ((await terminal.ask(question)).trim() === "yes") return;
  throw failed("nothing was erased", "only yes is taken for yes; --yes asks nothing");
}

export const DRY_RUN = "nothing was erased: this was a dry run\n";
