// Whoever has the identity and the database needs no veil: a plain SQL client, the standard `age` tool
// and any AES-GCM give the originals back. In ten years too.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { createDecipheriv } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateX25519Identity } from "age-encryption";
import { veil } from "../support/veil.ts";
import { createScene, type Scene } from "./scene.ts";

const hasAge = spawnSync("age", ["--version"]).status === 0;
const LOGIN = { user_id: "u1", ip: "2001:DB8::17", device_id: "Ωmega-📱-\u202e7" };
const BROKEN = `{"user_id":"u2","ip":"192.0.2.9`;

let scene: Scene;
let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "veil-recover-"));
  scene = await createScene();
  scene.send(LOGIN);
  scene.send([BROKEN]);
  expect((await veil(["etl", "--max-messages", "2"], { env: scene.etl })).code).toBe(0);
});
afterAll(async () => {
  await scene.database.drop();
  rmSync(folder, { recursive: true, force: true });
});

/** `age -d -i identity.txt`, a data key's age file on stdin. */
function ageDecrypt(wrapped: Uint8Array): Buffer {
  const identity = join(folder, "identity.txt");
  writeFileSync(identity, `${scene.keys.VEIL_IDENTITY}\n`, { mode: 0o600 });
  const age = spawnSync("age", ["--decrypt", "--identity", identity], { input: wrapped });
  expect({ status: age.status, stderr: String(age.stderr) }).toEqual({ status: 0, stderr: "" });
  return age.stdout;
}

function openSealed(dataKey: Buffer, additional: string, sealed: Buffer): string {
  const gcm = createDecipheriv("aes-256-gcm", dataKey, sealed.subarray(0, 12));
  gcm.setAAD(Buffer.from(additional));
  gcm.setAuthTag(sealed.subarray(-16));
  const padded = Buffer.concat([gcm.update(sealed.subarray(12, -16)), gcm.final()]);
  return padded.subarray(0, padded.lastIndexOf(0x80)).toString();
}

// Where the tool is missing there is nothing to show: `apt-get install age`.
test.skipIf(!hasAge)("originals open with SQL, the age tool and AES-GCM", async () => {
  const rows = await scene.database.sql(scene.database.ownerUrl)`
    select l.user_id, o.token, o.sealed, k.wrapped
    from public.user_logins l
    join pii_vault.originals o on o.token in (l.masked_ip, l.masked_device_id)
    join pii_vault.data_keys k on k.id = o.data_key
    order by o.token desc`;
  const originals = rows.map(({ token, sealed, wrapped }) =>
    openSealed(ageDecrypt(wrapped), `veil/v1/original\0${token}`, sealed),
  );
  expect(originals).toEqual([LOGIN.ip, LOGIN.device_id]);
});

test.skipIf(!hasAge)("so do the bodies in the quarantine", async () => {
  const [row] = await scene.database.sql(scene.database.ownerUrl)`
    select q.message_id, q.sealed, k.wrapped
    from etl.quarantine q join pii_vault.data_keys k on k.id = q.data_key`;
  const additional = `veil/v1/quarantine\0${row?.message_id}`;
  expect(openSealed(ageDecrypt(row?.wrapped), additional, row?.sealed)).toBe(
    JSON.stringify([BROKEN]),
  );
});

test.skipIf(!hasAge)("without the identity the age tool opens nothing", async () => {
  const [row] = await scene.database.sql(scene.database.ownerUrl)`
    select wrapped from pii_vault.data_keys`;
  const other = join(folder, "other.txt");
  writeFileSync(other, `${await generateX25519Identity()}\n`, { mode: 0o600 });
  const age = spawnSync("age", ["--decrypt", "--identity", other], { input: row?.wrapped });
  expect(age.status).not.toBe(0);
  expect(age.stdout.length).toBe(0);
});
