// There is no container engine where these tests run: what can be known of the files without one.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import packageJson from "../../package.json" with { type: "json" };
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { useSqs } from "../support/servers.ts";
import { veil } from "../support/veil.ts";

const checkout = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const read = (path: string) => readFileSync(join(checkout, path), "utf8");

type Service = {
  readonly image?: string;
  readonly build?: { readonly context: string; readonly target?: string };
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly ports?: readonly string[];
  readonly volumes?: readonly string[];
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly healthcheck?: unknown;
};
const compose = Bun.YAML.parse(read("docker-compose.yml")) as {
  readonly services: Readonly<Record<string, Service>>;
  readonly volumes: Readonly<Record<string, unknown>>;
};
const dotenv = Object.fromEntries(
  read(".env.compose")
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
);
const dockerfile = read("Dockerfile");
const stages = [...dockerfile.matchAll(/^FROM \S+(?: AS (\S+))?$/gm)].map((match) => match[1]);

describe("docker-compose.yml", () => {
  test("has a Postgres, a queue, their set-up, and veil, and no key that compose does not know", () => {
    expect(Object.keys(compose.services).sort()).toEqual(["postgres", "queue", "setup", "veil"]);
    const known = [
      ...["image", "build", "command", "user", "environment", "ports", "volumes", "depends_on"],
      ...["healthcheck", "read_only", "cap_drop", "security_opt", "stop_grace_period"],
    ];
    for (const service of Object.values(compose.services)) {
      expect(Object.keys(service).filter((key) => !known.includes(key))).toEqual([]);
      expect(service.image === undefined).toBe(service.build !== undefined);
    }
    expect(Object.keys(compose).sort()).toEqual(["name", "services", "volumes"]);
  });

  test("pins every image to a version", () => {
    for (const { image } of Object.values(compose.services)) {
      if (image !== undefined) expect(image).toMatch(/:[0-9]/);
    }
    expect(compose.services.queue?.image).toBe(
      `kibertoad/fauxqs:${packageJson.devDependencies.fauxqs}`,
    );
    expect(dockerfile).toContain(`FROM oven/bun:${packageJson.devDependencies.bun}-slim AS build`);
  });

  test("publishes its ports on loopback only", () => {
    const ports = Object.values(compose.services).flatMap((service) => service.ports ?? []);
    expect(ports).toEqual(["127.0.0.1:5432:5432", "127.0.0.1:4566:4566"]);
  });

  test("names only files, folders, volumes, stages and services that there are", () => {
    for (const service of Object.values(compose.services)) {
      if (service.build !== undefined) {
        expect(existsSync(join(checkout, service.build.context, "Dockerfile"))).toBe(true);
        if (service.build.target !== undefined) expect(stages).toContain(service.build.target);
      }
      for (const volume of service.volumes ?? []) {
        const source = volume.split(":")[0]!;
        if (source.startsWith("./")) expect(existsSync(join(checkout, source))).toBe(true);
        else expect(Object.keys(compose.volumes)).toContain(source);
      }
      for (const [name, { condition }] of Object.entries(service.depends_on ?? {})) {
        expect(Object.keys(compose.services)).toContain(name);
        expect(["service_healthy", "service_completed_successfully"]).toContain(condition);
      }
      for (const argument of service.command ?? []) {
        if (argument.endsWith(".ts")) expect(existsSync(join(checkout, argument))).toBe(true);
      }
    }
  });

  test("gives veil only variables that veil reads, and .env.compose the same queue and login", () => {
    const known =
      /^(DATABASE_URL|QUEUE_URL|AWS_\w+|VEIL_(TOKEN_KEY|RECIPIENTS|IDENTITY|VERIFY_KEY)_FILE)$/;
    const environment = compose.services.veil?.environment ?? {};
    for (const name of [...Object.keys(environment), ...Object.keys(dotenv)]) {
      expect(name).toMatch(known);
    }
    expect(environment.VEIL_IDENTITY_FILE).toBeUndefined();
    expect(dotenv.QUEUE_URL).toBe("http://localhost:4566/000000000000/login-queue");
    expect(environment.QUEUE_URL).toBe("http://queue:4566/000000000000/login-queue");
    expect(environment.DATABASE_URL?.replace("@postgres:", "@localhost:")).toBe(
      `${dotenv.DATABASE_URL}?sslmode=disable`,
    );
  });
});

describe("the Dockerfile", () => {
  test("copies only what its context has and .dockerignore lets through", () => {
    const allowed = read(".dockerignore")
      .split("\n")
      .filter((line) => line.startsWith("!"))
      .map((line) => line.slice(1));
    for (const [, sources] of dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)) {
      for (const source of sources!.split(" ")) {
        expect({ source, there: existsSync(join(checkout, source)) }).toEqual({
          source,
          there: true,
        });
        expect(allowed).toContain(source);
      }
    }
  });

  test("ends in an image that does not run as root and has veil as its entry", () => {
    const last = dockerfile.slice(dockerfile.lastIndexOf("FROM "));
    expect(last).toMatch(/^FROM \S+:nonroot$/m);
    expect(last).toContain('ENTRYPOINT ["/usr/local/bin/veil"]');
    expect(last).not.toMatch(/^USER root/m);
  });
});

describe("the set-up of docker-compose.yml, run against real servers", () => {
  const folder = mkdtempSync(join(tmpdir(), "veil-compose-"));
  let database: TestDatabase;
  beforeAll(async () => {
    database = await createDatabase({ migrated: false });
  });
  afterAll(async () => {
    const admin = database.sql(database.ownerUrl);
    await admin.unsafe("drop owned by compose; drop role if exists compose");
    await database.drop();
    rmSync(folder, { recursive: true, force: true });
  });

  test("leaves keys, schema, login and a full queue, and a second time changes nothing", async () => {
    const sqs = await useSqs();
    sqs.createQueue("login-queue");
    const env = {
      PATH: process.env.PATH ?? "",
      DATABASE_URL: database.ownerUrl,
      // As the compose file writes it: by name, on another host than the one that the server says.
      QUEUE_URL: `${sqs.address}/000000000000/login-queue`,
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: "local",
      AWS_SECRET_ACCESS_KEY: "local",
      KEYS: join(folder, "keys"),
      ...(process.getuid?.() === 0 ? { CONTAINER_KEYS: join(folder, "container") } : {}),
    };
    mkdirSync(join(folder, "container"));
    const setUp = async () => {
      const child = Bun.spawn([process.execPath, "--no-env-file", "deploy/compose/setup.ts"], {
        env,
        cwd: checkout,
        stdout: "pipe",
      });
      expect(await child.exited).toBe(0);
      return await new Response(child.stdout).text();
    };
    expect(await setUp()).toBe("100 sample messages sent\n");
    expect(await setUp()).toBe("0 sample messages sent\n");
    expect(readdirSync(env.KEYS).sort()).toEqual([
      ...["identity.txt", "recipients.txt", "token.key", "verify.key"],
    ]);
    // What the container gets is not what opens the vault.
    const container = readdirSync(join(folder, "container")).sort();
    if (process.getuid?.() === 0) expect(container).toEqual(["recipients.txt", "token.key"]);
    const login = new URL(database.ownerUrl);
    login.username = "compose";
    login.password = "compose";
    const host = {
      ...env,
      DATABASE_URL: login.href,
      VEIL_TOKEN_KEY_FILE: join(env.KEYS, "token.key"),
      VEIL_RECIPIENTS_FILE: join(env.KEYS, "recipients.txt"),
      VEIL_IDENTITY_FILE: join(env.KEYS, "identity.txt"),
    };
    const etl = await veil(["etl", "--json"], { env: host });
    expect(etl.stderr).toBe("");
    expect(JSON.parse(etl.stdout)).toMatchObject({ received: 100, loaded: 97, quarantined: 3 });
    expect(await setUp()).toBe("");
    const again = await veil(["etl", "--json"], { env: host });
    expect(JSON.parse(again.stdout)).toMatchObject({ received: 0 });
  });
});

const analyze = Bun.which("systemd-analyze");
describe("the systemd units", () => {
  test.skipIf(analyze === null)(
    "are understood by systemd, but for keys newer than it (skipped without systemd-analyze)",
    async () => {
      const folder = mkdtempSync(join(tmpdir(), "veil-units-"));
      for (const name of ["veil.service", "veil-drain.service", "veil-drain.timer"]) {
        // Its binary and its variables are where they are on a host that is set up.
        const unit = read(`deploy/${name}`)
          .replace(/^ExecStart=\S+/m, "ExecStart=/bin/true")
          .replace(/^EnvironmentFile=.*\n/m, "");
        await Bun.write(join(folder, name), unit);
      }
      const files = readdirSync(folder).map((name) => join(folder, name));
      const verify = Bun.spawn([analyze!, "verify", "--man=no", ...files], { stderr: "pipe" });
      const said = await new Response(verify.stderr).text();
      expect(await verify.exited).toBe(0);
      const complaints = said
        .split("\n")
        .filter(
          (line) => line !== "" && !/Unknown key '(RestartSteps|RestartMaxDelaySec)'/.test(line),
        );
      expect(complaints).toEqual([]);
      rmSync(folder, { recursive: true });
    },
  );

  test("unset what would steer a compiled Bun program, and hold no secret in a variable", () => {
    for (const name of ["veil.service", "veil-drain.service"]) {
      const unit = read(`deploy/${name}`);
      expect(unit).toMatch(/^UnsetEnvironment=.*\bBUN_OPTIONS\b.*\bBUN_BE_BUN\b/m);
      for (const [, variable] of unit.matchAll(/^Environment=(\w+)=/gm)) {
        expect(variable).toEndWith("_FILE");
      }
      expect(unit).toContain("DynamicUser=yes");
      expect(unit).not.toContain("IDENTITY");
    }
  });
});
