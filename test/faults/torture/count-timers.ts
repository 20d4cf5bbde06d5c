// Loaded before a program that is watched: counts the timers that are running, and writes how many to the
// file that VEIL_TIMERS_FILE names, each second. Covers the global functions and node:timers, promises too.
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";

type Callback = (...args: unknown[]) => unknown;
type Start = (callback: Callback, ms?: number, ...args: unknown[]) => NodeJS.Timeout;
type Stop = (timer?: unknown) => void;

const file = process.env.VEIL_TIMERS_FILE;
const running = new Set<unknown>();
const uncounted = globalThis.setInterval;

const once =
  (start: Start): Start =>
  (callback, ms, ...args) => {
    const timer = start(() => {
      running.delete(timer);
      callback(...args);
    }, ms);
    running.add(timer);
    return timer;
  };
const repeated =
  (start: Start): Start =>
  (...args) => {
    const timer = start(...args);
    running.add(timer);
    return timer;
  };
const stopping =
  (stop: Stop): Stop =>
  (timer) => {
    running.delete(timer);
    stop(timer);
  };

if (file !== undefined) {
  const require = createRequire(import.meta.url);
  const promises = require("node:timers/promises") as Record<string, unknown>;
  const wait = promises.setTimeout as (...args: unknown[]) => Promise<unknown>;
  promises.setTimeout = (...args: unknown[]) => {
    const timer = {};
    running.add(timer);
    return wait(...args).finally(() => running.delete(timer));
  };
  for (const timers of [globalThis, require("node:timers")] as Record<string, unknown>[]) {
    timers.setTimeout = once(timers.setTimeout as Start);
    timers.setInterval = repeated(timers.setInterval as Start);
    timers.clearTimeout = stopping(timers.clearTimeout as Stop);
    timers.clearInterval = stopping(timers.clearInterval as Stop);
  }
  uncounted(() => writeFileSync(file, String(running.size)), 1000).unref();
}
