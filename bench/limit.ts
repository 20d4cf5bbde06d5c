// The limit: what any program of this kind has to do, and nothing else. Unsigned requests (no AWS would
// answer them) by plain fetch, JSON.parse, one insert of up to a thousand rows at a time into a bare
// table, delete. Rows go as one JSON document: of the ways to send them (values, arrays, JSON; pg,
// postgres.js, Bun's own), the one that costs this process least, 0.8 µs a row against 1.9 for arrays.
// Run by bench.ts: limit.ts MESSAGES.
import postgres from "postgres";

const RECEIVERS = 16;
const ROWS = 1000;
const MAX_HELD = 4000;

const { QUEUE_URL = "", AWS_ENDPOINT_URL_SQS = "", DATABASE_URL = "" } = process.env;
const messages = Number(process.argv[2]);

type Received = {
  MessageId: string;
  ReceiptHandle: string;
  Body: string;
  Attributes: { SentTimestamp: string };
};

async function call(action: string, body: object): Promise<{ Messages?: Received[] }> {
  const answer = await fetch(AWS_ENDPOINT_URL_SQS, {
    method: "POST",
    headers: {
      "content-type": "application/x-amz-json-1.0",
      "x-amz-target": `AmazonSQS.${action}`,
    },
    body: JSON.stringify({ QueueUrl: QUEUE_URL, ...body }),
  });
  if (!answer.ok) throw new Error(`${action}: ${answer.status}`);
  return (await answer.json()) as { Messages?: Received[] };
}

const sql = postgres(DATABASE_URL, { max: 2 });
const INSERT = `insert into public.user_logins select * from json_to_recordset($1::text::json) as r (
  user_id text, device_type text, ip text, device_id text, locale text, app_version integer, sent date)`;

const waiting: Received[] = [];
let asked = 0;
let held = 0;
let deleted = 0;
let inserting = 0;
let changed = Promise.withResolvers<void>();
const change = () => {
  changed.resolve();
  changed = Promise.withResolvers<void>();
};

async function receive(): Promise<void> {
  while (asked < messages) {
    if (held + 10 > MAX_HELD) {
      await changed.promise;
      continue;
    }
    const most = Math.min(10, messages - asked);
    asked += most;
    held += most;
    const { Messages = [] } = await call("ReceiveMessage", {
      MaxNumberOfMessages: most,
      WaitTimeSeconds: 1,
      MessageSystemAttributeNames: ["SentTimestamp"],
    });
    asked -= most - Messages.length;
    held -= most - Messages.length;
    waiting.push(...Messages);
    void store();
  }
}

async function store(): Promise<void> {
  // Two at a time: while one is on its way, the next one fills up.
  if (inserting === 2 || (waiting.length < ROWS && inserting > 0) || waiting.length === 0) return;
  inserting++;
  const batch = waiting.splice(0, ROWS);
  const rows = batch.map(({ Body, Attributes }) => {
    const login = JSON.parse(Body);
    const [major, minor, patch] = login.app_version.split(".");
    login.app_version = Number(major) * 1e6 + Number(minor) * 1e3 + Number(patch);
    login.sent = new Date(Number(Attributes.SentTimestamp)).toISOString().slice(0, 10);
    return login;
  });
  await sql.unsafe(INSERT, [JSON.stringify(rows)], { prepare: true });
  inserting--;
  void store();
  for (let i = 0; i < batch.length; i += 10) {
    const ten = batch.slice(i, i + 10);
    const Entries = ten.map(({ ReceiptHandle }, n) => ({ Id: String(n), ReceiptHandle }));
    void call("DeleteMessageBatch", { Entries }).then(() => {
      deleted += ten.length;
      held -= ten.length;
      change();
    });
  }
}

await Promise.all(Array.from({ length: RECEIVERS }, receive));
while (deleted < messages) await changed.promise;
process.exit(0);
