// The usual way: sqs-consumer and pg, as their READMEs show them. Each consumer receives ten, masks address
// and device with SHA-256, inserts the ten rows, and its library deletes them. sqs-consumer handles one
// batch at a time; for more at once its authors say to start several.
// Run by bench.ts: consumer.ts MESSAGES.
import { createHash } from "node:crypto";
import { type Message, SQSClient } from "@aws-sdk/client-sqs";
import pg from "pg";
import { Consumer } from "sqs-consumer";

const CONSUMERS = Number(process.argv[3] ?? 8);
const BATCH = 10;

const messages = Number(process.argv[2]);
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: CONSUMERS });
const sqs = new SQSClient();

const mask = (value: string | null): string | null =>
  value === null ? null : createHash("sha256").update(value).digest("hex");

function version(text: string): number {
  const [major = 0, minor = 0, patch = 0] = text.split(".").map(Number);
  return major * 1e6 + minor * 1e3 + patch;
}

function insertOf(rows: number): string {
  const places = Array.from({ length: rows }, (_, row) => {
    const columns = Array.from({ length: 7 }, (_, column) => `$${row * 7 + column + 1}`);
    return `(${columns.join(", ")})`;
  });
  return `insert into public.user_logins (user_id, device_type, masked_ip, masked_device_id, locale,
    app_version, create_date) values ${places.join(", ")}`;
}
const INSERT = insertOf(BATCH);

async function handleMessageBatch(batch: Message[]): Promise<Message[]> {
  const values = batch.flatMap(({ Body = "", Attributes }) => {
    const login = JSON.parse(Body);
    return [
      login.user_id,
      login.device_type,
      mask(login.ip),
      mask(login.device_id),
      login.locale,
      version(login.app_version),
      new Date(Number(Attributes?.SentTimestamp)).toISOString().slice(0, 10),
    ];
  });
  // A named statement is parsed once per connection.
  await pool.query(
    batch.length === BATCH
      ? { name: "ten", text: INSERT, values }
      : { text: insertOf(batch.length), values },
  );
  return batch;
}

let deleted = 0;
for (let i = 0; i < CONSUMERS; i++) {
  const consumer = Consumer.create({
    queueUrl: process.env.QUEUE_URL ?? "",
    sqs,
    batchSize: BATCH,
    messageSystemAttributeNames: ["SentTimestamp"],
    handleMessageBatch,
  });
  const fail = (error: Error) => {
    console.error(error);
    process.exit(1);
  };
  consumer.on("error", fail);
  consumer.on("processing_error", fail);
  consumer.on("message_processed", () => {
    if (++deleted === messages) process.exit(0);
  });
  consumer.start();
}
