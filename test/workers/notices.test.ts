import { expect, test } from "bun:test";
import type { Notice } from "../../src/line/availability.ts";
import { Notices } from "../../src/workers/notices.ts";

function listening() {
  const told: string[] = [];
  return { told, notices: new Notices(({ message }) => told.push(message)) };
}

const away = (about: string): Notice => ({ event: "away", message: `${about}: away`, about });
const back = (about: string, seconds: number): Notice => {
  return { event: "back", message: `${about}: back after ${seconds} s`, about };
};
const warning = (message: string): Notice => ({ event: "warning", message });

test("what all workers wait for is told once, and its end when it has ended for the last", () => {
  const { told, notices } = listening();
  for (const worker of [1, 2, 3]) notices.pass(worker, away("the database"));
  for (const worker of [3, 1, 2]) notices.pass(worker, back("the database", worker));
  expect(told).toEqual(["the database: away", "the database: back after 2 s"]);
  notices.pass(2, away("the database"));
  expect(told.length).toBe(3);
});

test("two troubles at a time are two", () => {
  const { told, notices } = listening();
  notices.pass(1, away("the database"));
  notices.pass(1, away("the queue"));
  notices.pass(1, back("the database", 5));
  expect(told).toEqual(["the database: away", "the queue: away", "the database: back after 5 s"]);
});

test("a worker that died keeps nobody waiting for the end of a trouble", () => {
  const { told, notices } = listening();
  notices.pass(1, away("the database"));
  notices.pass(2, away("the database"));
  notices.forget(1);
  notices.pass(2, back("the database", 7));
  expect(told).toEqual(["the database: away", "the database: back after 7 s"]);
});

test("one warning of several workers is one, and another warning is another", () => {
  const { told, notices } = listening();
  for (const worker of [1, 2]) {
    notices.pass(worker, warning("a right is missing"));
    notices.pass(worker, warning("another one, too"));
  }
  expect(told).toEqual(["a right is missing", "another one, too"]);
});
