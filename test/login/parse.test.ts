import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type Login, type ParsedBody, parseMessage } from "../../src/login/parse.ts";

const EMPTY: Login = {
  userId: "u",
  deviceType: null,
  ip: null,
  deviceId: null,
  locale: null,
  appVersion: null,
};

const parse = (message: unknown): ParsedBody => parseMessage(JSON.stringify(message));
const login = (login: Partial<Login>): ParsedBody => ({
  kind: "login",
  login: { ...EMPTY, ...login },
});
const reasonOf = (parsed: ParsedBody): string => {
  if (parsed.kind !== "rejected") throw new Error("expected a rejection, got a login");
  return parsed.reason;
};
const rejected = (message: unknown): string => reasonOf(parse(message));
const rejectedText = (body: string): string => reasonOf(parseMessage(body));

describe("a login", () => {
  test("has every field of a flat message", () => {
    expect(
      parse({
        user_id: "424cdd21",
        app_version: "2.3.0",
        device_type: "android",
        ip: "199.172.111.135",
        locale: "RU",
        device_id: "593-47-5928",
      }),
    ).toEqual(
      login({
        userId: "424cdd21",
        deviceType: "android",
        ip: "199.172.111.135",
        deviceId: "593-47-5928",
        locale: "RU",
        appVersion: 2_003_000,
      }),
    );
  });

  test("needs a user_id and nothing else", () => {
    expect(parse({ user_id: "u" })).toEqual(login({}));
    const nulls = { app_version: null, device_type: null, ip: null, locale: null, device_id: null };
    expect(parse({ user_id: "u", ...nulls })).toEqual(login({}));
  });

  test("has no ip or device id where those are empty, but keeps other empty text", () => {
    expect(parse({ user_id: "u", ip: "", device_id: "", device_type: "", locale: "" })).toEqual(
      login({ deviceType: "", locale: "" }),
    );
  });

  test("keeps every value as it was sent", () => {
    const odd = " \t\u202e\ufeff\u001f🤖e\u0301 ";
    expect(parse({ user_id: odd, ip: odd, device_id: odd, locale: odd, device_type: odd })).toEqual(
      login({ userId: odd, ip: odd, deviceId: odd, locale: odd, deviceType: odd }),
    );
  });

  test("ignores unknown keys, whatever they hold", () => {
    expect(
      parse({ user_id: "u", extra: { user_id: 7, ip: ["x"] }, devices: [{ id: 1 }], ipv6: "::1" }),
    ).toEqual(login({}));
    expect(parse({ user_id: "u", USER_ID: 1, userId: 2, "user id": 3, "": 4, _: 5 })).toEqual(
      login({}),
    );
  });

  test("is read from JSON with white space around it, not with a byte order mark", () => {
    expect(parseMessage(' \r\n\t{"user_id":"u"} \n')).toEqual(login({}));
    expect(rejectedText('\ufeff{"user_id":"u"}')).toBe("the body is not JSON");
  });
});

describe("user_id", () => {
  test.each([
    ["absent", { ip: "203.0.113.1" }, "user_id is missing"],
    ["null", { user_id: null }, "user_id is missing"],
    ["empty", { user_id: "" }, "user_id is empty"],
    ["a number", { user_id: 7 }, "user_id is a number, expected a string"],
    ["a boolean", { user_id: true }, "user_id is a boolean, expected a string"],
    ["an object", { user_id: { id: "u" } }, "user_id is an object, expected a string"],
    ["an array", { user_id: ["u"] }, "user_id is an array, expected a string"],
  ])("is refused where it is %s", (_, message, reason) => {
    expect(rejected(message)).toBe(reason);
  });
});

describe("text", () => {
  const FIELDS = [
    ["user_id", "userId", 128],
    ["device_type", "deviceType", 32],
    ["locale", "locale", 32],
  ] as const;

  test.each(FIELDS)("%s counts code points, not UTF-16 units", (field, key, max) => {
    for (const character of ["a", "é", "\u{1f600}", "\u{10ffff}"]) {
      const text = character.repeat(max);
      expect(parse({ user_id: "u", [field]: text })).toEqual(login({ [key]: text }));
      expect(rejected({ user_id: "u", [field]: `${text}a` })).toBe(
        `${field} is longer than ${max} characters`,
      );
      expect(rejected({ user_id: "u", [field]: `a${text}` })).toContain(field);
    }
  });

  test.each([
    ["ip", "ip"],
    ["device_id", "deviceId"],
  ] as const)("%s holds up to 1,024 bytes of UTF-8", (field, key) => {
    const fitting = ["a".repeat(1024), "é".repeat(512), "€".repeat(341), "\u{1f600}".repeat(256)];
    for (const text of fitting) {
      expect(parse({ user_id: "u", [field]: text })).toEqual(login({ [key]: text }));
    }
    const tooLong = [
      "a".repeat(1025),
      `${"é".repeat(512)}a`,
      "€".repeat(342),
      `${"\u{1f600}".repeat(256)}a`,
    ];
    for (const text of tooLong) {
      expect(rejected({ user_id: "u", [field]: text })).toBe(`${field} is longer than 1024 bytes`);
    }
  });

  const TEXTS = ["user_id", "device_type", "ip", "locale", "device_id"] as const;

  test.each(TEXTS)("%s may hold no NUL and no lone surrogate", (field) => {
    for (const text of ["\0", "a\0", "\0a", "a\0b"]) {
      expect(rejected({ user_id: "u", [field]: text })).toBe(`${field} holds a NUL character`);
    }
    for (const text of ["\ud800", "\udc00", "a\ud83d", "\ude00b", "\ude00\ud83d"]) {
      expect(rejected({ user_id: "u", [field]: text })).toBe(`${field} holds a lone surrogate`);
    }
    // Written out rather than escaped: SQS would not deliver it, but a replayed body may hold it.
    expect(rejectedText(`{"user_id":"u","${field}":"\ud800"}`)).toContain(field);
  });

  test.each(TEXTS)("%s of another type than a string is a wrong type", (field) => {
    const values = [
      [0, "a number"],
      [1.5, "a number"],
      [false, "a boolean"],
      [{}, "an object"],
      [{ id: "x" }, "an object"],
      [[], "an array"],
      [["x"], "an array"],
    ] as const;
    for (const [value, name] of values) {
      expect(rejected({ user_id: "u", [field]: value })).toBe(
        `${field} is ${name}, expected a string`,
      );
    }
  });
});

/** The rule read a second time, by hand: null where the text is no version or does not fit. */
function referenceVersion(text: string): number | null {
  const parts: string[] = [];
  let i = 0;
  for (;;) {
    let digits = "";
    while (i < text.length && "0123456789".includes(text.charAt(i))) digits += text.charAt(i++);
    if (digits === "") return null;
    parts.push(digits);
    if (text.charAt(i) !== ".") break;
    i++;
  }
  const suffix = text.slice(i);
  if (suffix !== "" && suffix[0] !== "-" && suffix[0] !== "+") return null;
  if ([..."\n\r\u2028\u2029"].some((end) => suffix.includes(end))) return null;
  const [major = 0n, minor = 0n, patch = 0n] = parts.map(BigInt);
  if (major > 2146n || minor > 999n || patch > 999n) return null;
  return Number((major * 1000n + minor) * 1000n + patch);
}

const versionOf = (value: unknown): number | null => {
  const parsed = parse({ user_id: "u", app_version: value });
  return parsed.kind === "login" ? parsed.login.appVersion : null;
};

describe("app_version", () => {
  test.each([
    ["2.3.0", 2_003_000],
    ["2", 2_000_000],
    ["2.3", 2_003_000],
    ["0", 0],
    ["0.0.0", 0],
    ["0.0.1", 1],
    ["0.1", 1_000],
    ["1.2.3", 1_002_003],
    ["02.003.0004", 2_003_004],
    [`${"0".repeat(5000)}7.1`, 7_001_000],
    ["2.3.4.5", 2_003_004],
    ["2.3.4.99999.0.1", 2_003_004],
    ["2.3.0-beta", 2_003_000],
    ["2.3.0-beta.12+1", 2_003_000],
    ["2.3.0+1", 2_003_000],
    ["2-", 2_000_000],
    ["2+", 2_000_000],
    ["2-99999.99999", 2_000_000],
    ["1.999.999", 1_999_999],
    ["2146", 2_146_000_000],
    ["2146.999.999", 2_146_999_999],
    [0, 0],
    [2, 2_000_000],
    [2146, 2_146_000_000],
  ])("%p is %p", (value, version) => {
    expect(parse({ user_id: "u", app_version: value })).toEqual(login({ appVersion: version }));
  });

  test.each([
    ...["", " ", ".", "-", "+", "-1", "+1", "v2", "V2.3", "2.", "2.3.", ".2", "2..3", "2.-1"],
    ...[" 2", "2 ", "2 .3", "2.3.0 beta", "2.3.0_1", "2,3", "2.x", "beta", "0x10", "1e3", "２.3"],
    ...["2\n", "2.3\n", "\n2", "2-a\nb", "٢", "2.3.0beta", "NaN", "Infinity"],
  ])("%p is no version", (text) => {
    expect(rejected({ user_id: "u", app_version: text })).toBe(
      "app_version is not written as a version",
    );
  });

  test.each([
    ...["2147", "2147.0.0", "1.1000", "1.0.1000", "1.1000.0", "4294967298", "1".repeat(400)],
    ...[`1.${"9".repeat(400)}`, `1.0.${"9".repeat(400)}`, "9007199254740993"],
    ...[2147, -1, -2146, Number.MAX_SAFE_INTEGER, 1e21, 1e308],
  ])("%p is out of range", (value) => {
    expect(rejected({ user_id: "u", app_version: value })).toContain("app_version is out of range");
  });

  test.each([0.5, 2.3, -0.1, 2146.5, 1e-7])("the fraction %p is no version", (value) => {
    expect(rejected({ user_id: "u", app_version: value })).toContain(
      "app_version is not a whole number",
    );
  });

  test.each([
    ["1e3", 1_000_000_000],
    ["2.0", 2_000_000],
    ["20e-1", 2_000_000],
    ["-0", 0],
  ])("the number %s is the integer that JSON says it is", (text, version) => {
    const parsed = parseMessage(`{"user_id":"u","app_version":${text}}`);
    expect(parsed).toEqual(login({ appVersion: version }));
    expect(parsed.kind === "login" && Object.is(parsed.login.appVersion, version)).toBe(true);
  });

  test.each([
    ["1e309", "1e309"],
    ["-1e309", "-1e309"],
    ["1e999999", "1e999999"],
    ["of 5,001 digits", `1${"0".repeat(5000)}`],
    ["of 5,000 digits below zero", `-${"9".repeat(5000)}.5`],
  ])("the number %s is beyond every double, and out of range", (_, text) => {
    expect(rejectedText(`{"user_id":"u","app_version":${text}}`)).toContain(
      "app_version is out of range",
    );
  });

  test.each([
    ["2146.0000000000000000000001", 2_146_000_000],
    ["0.99999999999999999999", 1_000_000],
    ["-1e-400", 0],
  ])("the number %s is the double nearest to it", (text, version) => {
    const parsed = parseMessage(`{"user_id":"u","app_version":${text}}`);
    expect(parsed).toEqual(login({ appVersion: version }));
  });

  test("of another type is a wrong type", () => {
    for (const value of [true, {}, { major: 2 }, [], ["2.3.0"], [2]]) {
      expect(rejected({ user_id: "u", app_version: value })).toMatch(
        /^app_version is an? (boolean|object|array), expected a string$/,
      );
    }
  });

  test("agrees with a second reading of the rule for any text", () => {
    const part = fc.oneof(
      fc.nat(3000).map(String),
      fc.constantFrom("0", "00", "2146", "2147", "999", "1000", "", "x", "007", "9".repeat(40)),
    );
    const suffix = fc.oneof(
      fc.constantFrom("", "-", "+", "-beta", "+1", "-\n", ".", " ", "\n", "\u2028", "-\u2029"),
      fc.string({ unit: "binary", maxLength: 6 }),
    );
    const near = fc
      .tuple(fc.array(part, { maxLength: 5 }), suffix)
      .map(([parts, rest]) => parts.join(".") + rest);
    fc.assert(
      fc.property(fc.oneof(near, near, fc.string({ unit: "binary" })), (text) => {
        expect(versionOf(text)).toBe(referenceVersion(text));
      }),
      { numRuns: 3000 },
    );
  });

  test("agrees with a second reading of the rule for any number", () => {
    const number = fc.oneof(fc.integer(), fc.integer({ min: -2, max: 2200 }), fc.double());
    fc.assert(
      fc.property(number, (value) => {
        const isMajor = Number.isInteger(value) && value >= 0 && value <= 2146;
        const expected = isMajor ? Math.trunc(value) * 1_000_000 + 0 : null;
        // JSON has no NaN and no infinity: it writes null, which is null here too.
        expect(versionOf(value)).toBe(expected);
      }),
      { numRuns: 1000 },
    );
  });

  test("sorts as versions do, and reads back", () => {
    const version = fc.tuple(fc.nat(2146), fc.nat(999), fc.nat(999));
    fc.assert(
      fc.property(version, version, (a, b) => {
        const [x, y] = [versionOf(a.join(".")) ?? -1, versionOf(b.join(".")) ?? -1];
        const difference = a[0] - b[0] || a[1] - b[1] || a[2] - b[2];
        expect(Math.sign(x - y)).toBe(Math.sign(difference));
        expect([Math.floor(x / 1e6), Math.floor(x / 1e3) % 1e3, x % 1e3]).toEqual(a);
      }),
    );
  });
});

describe("flattening", () => {
  test("joins nested keys with an underscore", () => {
    expect(
      parse({ user: { id: "u" }, device: { id: "d", type: "ios" }, app: { version: "2.3.0" } }),
    ).toEqual(login({ deviceId: "d", deviceType: "ios", appVersion: 2_003_000 }));
  });

  test("goes into objects that share a prefix of a field only", () => {
    expect(parse({ user_id: "u", device: { id_: "x", Id: "y", "": { id: "z" } } })).toEqual(
      login({}),
    );
    expect(parse({ user_id: "u", device: "an old spelling" })).toEqual(login({}));
    expect(parse({ user_id: "u", device: [{ id: "x" }] })).toEqual(login({}));
    expect(parse({ user_id: "u", device: null })).toEqual(login({}));
    expect(parse({ user_id: "u", device_: { id: "x" }, _device: { id: "x" } })).toEqual(login({}));
  });

  test.each([
    ["values that differ", { device_id: "a", device: { id: "b" } }],
    ["values that are equal", { device_id: "a", device: { id: "a" } }],
    ["a null beside a value", { device_id: null, device: { id: "b" } }],
    ["a value beside a null", { device: { id: "b" }, device_id: null }],
    ["two nulls", { device: { id: null }, device_id: null }],
    ["wrong types", { device: { id: {} }, device_id: [] }],
  ])("is ambiguous where two paths lead to one field: %s", (_, device) => {
    expect(rejected({ user_id: "u", ...device })).toBe(
      "device_id is ambiguous: two paths of the message lead to it",
    );
  });

  test("sees every field's ambiguity", () => {
    for (const field of ["user_id", "app_version", "device_type", "device_id"]) {
      const [outer = "", inner = ""] = field.split("_");
      const message = { user_id: "u", [field]: "1", [outer]: { [inner]: "1" } };
      expect(rejected(message)).toBe(`${field} is ambiguous: two paths of the message lead to it`);
    }
  });

  test("an object where a value belongs is a wrong type, not a deeper path", () => {
    expect(rejected({ user_id: "u", device: { id: { id: "x" } } })).toBe(
      "device_id is an object, expected a string",
    );
    expect(rejected({ user_id: "u", ip: { address: "203.0.113.1" } })).toBe(
      "ip is an object, expected a string",
    );
  });

  test("a key that stands twice counts as last", () => {
    expect(parseMessage('{"user_id":"first","user_id":"u"}')).toEqual(login({}));
    expect(parseMessage('{"user_id":7,"user_id":"u","ip":"a","ip":null}')).toEqual(login({}));
    expect(parseMessage('{"user_id":"u","device":{"id":"x"},"device":{"type":"t"}}')).toEqual(
      login({ deviceType: "t" }),
    );
    expect(parseMessage('{"user_id":"u","device_id":"d","device":{"id":"x"},"device":0}')).toEqual(
      login({ deviceId: "d" }),
    );
    expect(parseMessage('{"user_id":"u","\\u0069p":"a","ip":"b"}')).toEqual(login({ ip: "b" }));
  });

  test("treats the names of JavaScript's own properties as any unknown key", () => {
    expect(
      parseMessage(
        '{"__proto__":{"user_id":"x","ip":"x"},"constructor":{"name":1},"toString":null,' +
          '"device":{"__proto__":{"id":"x"},"constructor":1},"hasOwnProperty":1,"user_id":"u"}',
      ),
    ).toEqual(login({}));
    expect(rejectedText('{"__proto__":{"user_id":"x"}}')).toContain("another type of message");
    const inherited = '{"__proto__":{"Type":"Notification","Message":"not JSON"},"user_id":"u"}';
    expect(parseMessage(inherited)).toEqual(login({}));
    expect(rejectedText('{"user":{"__proto__":{"id":"x"}}}')).toContain("another type of message");
  });
});

describe("an SNS envelope", () => {
  const envelope = (Message: unknown, more: object = {}) => ({
    Type: "Notification",
    MessageId: "22b80b92",
    TopicArn: "arn:aws:sns:us-east-1:1:logins",
    Message,
    ...more,
  });

  test("is unwrapped", () => {
    const inner = JSON.stringify({ user: { id: "u" }, locale: "de" });
    expect(parse(envelope(inner))).toEqual(login({ locale: "de" }));
    expect(parse(envelope(inner, { user_id: "outside", ip: 7 }))).toEqual(login({ locale: "de" }));
  });

  test("is unwrapped once", () => {
    const twice = envelope(JSON.stringify(envelope(JSON.stringify({ user_id: "u" }))));
    expect(rejected(twice)).toContain("another type of message");
  });

  test.each([
    ["another Type", { Type: "SubscriptionConfirmation", Message: '{"user_id":"x"}' }],
    ["no Type", { Message: '{"user_id":"x"}' }],
    ["a Type that is no string", { Type: ["Notification"], Message: '{"user_id":"x"}' }],
    ["a Message that is no string", { Type: "Notification", Message: { user_id: "x" } }],
    ["no Message", { Type: "Notification" }],
  ])("is not one with %s", (_, outer) => {
    expect(parse({ ...outer, user_id: "u" })).toEqual(login({}));
    expect(rejected(outer)).toContain("another type of message");
  });

  test("that holds no login says so of the message inside", () => {
    expect(rejected(envelope("hello"))).toBe("the message in its SNS envelope is not JSON");
    expect(rejected(envelope(""))).toBe("the message in its SNS envelope is not JSON");
    expect(rejected(envelope("[]"))).toContain("SNS envelope is an array, expected an object");
    expect(rejected(envelope("{}"))).toContain("another type of message");
  });
});

describe("what is no login at all", () => {
  test.each(["", " ", "hello", "{", "{}x", "{'user_id':'u'}", '{"user_id":"u",}', "NaN", "\0"])(
    "%p is not JSON",
    (body) => {
      expect(rejectedText(body)).toBe("the body is not JSON");
    },
  );

  test.each([
    ["null", "null"],
    ["[]", "an array"],
    ['[{"user_id":"u"}]', "an array"],
    ['"{\\"user_id\\":\\"u\\"}"', "a string"],
    ["7", "a number"],
    ["true", "a boolean"],
  ])("%s is not an object", (body, name) => {
    expect(rejectedText(body)).toBe(`the body is ${name}, expected an object`);
  });

  test.each(["{}", '{"event":"logout"}', '{"device":{}}', '{"device":{"name":"x"}}'])(
    "%s is another type of message",
    (body) => {
      expect(rejectedText(body)).toContain("another type of message");
    },
  );
});

describe("a hostile body", () => {
  const DEPTH = 100_000;

  test("may nest as deep as it likes beside the fields", () => {
    const deep = [
      `${"[".repeat(DEPTH)}${"]".repeat(DEPTH)}`,
      `${'{"a":'.repeat(DEPTH)}1${"}".repeat(DEPTH)}`,
    ];
    for (const value of deep) {
      for (const key of ["x", "device", "app"]) {
        expect(parseMessage(`{"user_id":"u","${key}":${value}}`)).toEqual(login({}));
      }
    }
  });

  test("may not nest in place of a value, or of the message", () => {
    const arrays = `${"[".repeat(DEPTH)}${"]".repeat(DEPTH)}`;
    const objects = `${'{"id":'.repeat(DEPTH)}1${"}".repeat(DEPTH)}`;
    expect(rejectedText(arrays)).toContain("the body is an array");
    expect(rejectedText(objects)).toContain("another type of message");
    expect(rejectedText("[".repeat(DEPTH))).toBe("the body is not JSON");
    expect(rejectedText(`{"user_id":${arrays}}`)).toContain("user_id is an array");
    expect(rejectedText(`{"user_id":"u","device":${objects}}`)).toContain("device_id is an object");
  });

  test("may be as large as SQS allows", () => {
    const megabyte = 2 ** 20;
    expect(parse({ user_id: "u", padding: "x".repeat(megabyte) })).toEqual(login({}));
    const manyKeys = `{${'"device":{},'.repeat(megabyte / 12)}"user_id":"u"}`;
    expect(parseMessage(manyKeys)).toEqual(login({}));
    for (const field of ["user_id", "locale", "device_type", "ip", "device_id"]) {
      const reason = rejected({ user_id: "u", [field]: "x".repeat(megabyte) });
      expect(reason).toStartWith(`${field} is longer than `);
    }
    expect(rejected({ user_id: "u", app_version: "1".repeat(megabyte) })).toContain("range");
    expect(rejected({ user_id: "u", app_version: "1.".repeat(megabyte / 2) })).toContain("written");
    expect(versionOf(`2${".0".repeat(megabyte / 2)}`)).toBe(2_000_000);
    expect(versionOf(`2-${"0".repeat(megabyte)}`)).toBe(2_000_000);
  });
});

const CANARY = "kanarienvogel";

/** JSON texts around the shape of a login: our keys and near misses, nested, some of them twice. */
const nearLogin = fc.letrec<{ value: string; object: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    fc.constantFrom("null", "true", "false", "{}", "[]", "271828", "-271828", "2718.28", "1e999"),
    fc.nat(2200).map(String),
    fc.constantFrom("", "2.3.0", "2.3", "9999").map((text) => JSON.stringify(text)),
    fc.string({ unit: "binary", maxLength: 8 }).map((text) => JSON.stringify(CANARY + text)),
    fc.nat(1100).map((length) => JSON.stringify(CANARY.padEnd(length, "x"))),
    tie("value").map((value) => `[${value},"${CANARY}"]`),
    tie("object"),
    tie("object").map((object) => JSON.stringify(object)),
  ),
  object: fc
    .array(
      fc.tuple(
        fc.oneof(
          fc.constantFrom("user_id", "app_version", "device_type", "ip", "locale", "device_id"),
          fc.constantFrom("user", "device", "app", "id", "type", "version", "Type", "Message"),
          fc.constantFrom("__proto__", "constructor", "", "_", CANARY),
        ),
        fc.oneof(tie("value"), fc.constant('"Notification"')),
      ),
      { maxLength: 6 },
    )
    .map((entries) => `{${entries.map(([key, value]) => `"${key}":${value}`).join(",")}}`),
}));

type Node = Record<string, unknown>;
const isNode = (value: unknown): value is Node =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The rules once more, by walking everything and looking afterwards; null for a rejection. */
function referenceLogin(body: string): Login | null {
  let root: unknown = JSON.parse(body);
  if (!isNode(root)) return null;
  const { Type, Message } = { ...root };
  if (Type === "Notification" && typeof Message === "string") {
    try {
      root = JSON.parse(Message);
    } catch {
      return null;
    }
  }
  if (!isNode(root)) return null;
  const paths: [string, unknown][] = [];
  const walk = (node: Node, path: readonly string[]) => {
    for (const [key, value] of Object.entries(node)) {
      paths.push([[...path, key].join("_"), value]);
      if (isNode(value)) walk(value, [...path, key]);
    }
  };
  walk(root, []);
  let valid = true;
  const only = (field: string): unknown => {
    const values = paths.filter(([path]) => path === field).map(([, value]) => value);
    valid &&= values.length <= 1;
    return values[0] ?? null;
  };
  const text = (field: string, fits: (text: string) => boolean): string | null => {
    const value = only(field);
    if (value === null) return null;
    if (typeof value === "string" && !/[\0\p{Cs}]/u.test(value) && fits(value)) return value;
    valid = false;
    return null;
  };
  const characters = (max: number) => (value: string) => Array.from(value).length <= max;
  const bytes = (value: string) => Buffer.byteLength(value) <= 1024;
  const version = only("app_version");
  let appVersion: number | null = null;
  if (typeof version === "number") {
    appVersion = referenceVersion(Object.is(version, -0) ? "0" : String(version));
    if (!Number.isInteger(version)) appVersion = null;
  } else if (typeof version === "string") {
    appVersion = referenceVersion(version);
  }
  valid &&= version === null || appVersion !== null;
  const userId = text("user_id", (value) => value !== "" && characters(128)(value));
  const login = {
    deviceType: text("device_type", characters(32)),
    ip: text("ip", bytes) || null,
    deviceId: text("device_id", bytes) || null,
    locale: text("locale", characters(32)),
    appVersion,
  };
  return valid && userId !== null ? { userId, ...login } : null;
}

describe("whatever the body is", () => {
  test("the answer is a login or a reason, never an error", () => {
    const bodies = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.json(),
      fc.jsonValue().map((value) => JSON.stringify({ user_id: value, ip: value })),
      nearLogin.object,
    );
    fc.assert(
      fc.property(bodies, (body) => {
        const parsed = parseMessage(body);
        if (parsed.kind === "rejected") {
          expect(parsed.reason).not.toBe("");
          expect(parsed.reason.length).toBeLessThanOrEqual(500);
        }
      }),
      { numRuns: 3000 },
    );
  });

  test("the reason quotes no value", () => {
    let rejections = 0;
    fc.assert(
      fc.property(fc.oneof(nearLogin.object, nearLogin.value), (body) => {
        const parsed = parseMessage(body);
        if (parsed.kind === "login") return;
        rejections++;
        expect(parsed.reason).not.toContain(CANARY);
        expect(parsed.reason).not.toMatch(/2718/);
      }),
      { numRuns: 5000 },
    );
    expect(rejections).toBeGreaterThan(100);
  });

  test("the reason quotes nothing of a body that is not JSON", () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (before, after) => {
        const parsed = parseMessage(before + CANARY + after);
        if (parsed.kind === "rejected") expect(parsed.reason).not.toContain(CANARY);
      }),
    );
  });

  test("a second reading of the rules gives the same login, or none either", () => {
    let logins = 0;
    const known = fc
      .tuple(nearLogin.object, fc.constantFrom("user_id", "id"))
      .map(([object, key]) => object.replace("{", `{"${key}":"u"${object === "{}" ? "" : ","}`));
    const bodies = fc.oneof(known, known, nearLogin.object);
    fc.assert(
      fc.property(bodies, (body) => {
        const parsed = parseMessage(body);
        if (parsed.kind === "login") logins++;
        expect(parsed.kind === "login" ? parsed.login : null).toEqual(referenceLogin(body));
      }),
      { numRuns: 5000 },
    );
    expect(logins).toBeGreaterThan(100);
  });
});
