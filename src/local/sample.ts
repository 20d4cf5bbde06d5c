// The hundred sample messages of the embedded default: made up, the same every time, and as varied
// as real ones. Addresses are from the ranges that are reserved for documentation.

const USERS = 40;
const LOCALES = ["en_US", "de_DE", null, "pt_BR", "fr_FR", null, "ja_JP"];
const DEVICE_TYPES = ["android", "ios", "web"];
const VERSIONS = ["2.3.0", "2.3.1", "2.10.0", "3.0", "0.81.7", "4.2.0-beta.1", null];

/** Spellings of one address, which give one token. */
const IPV6 = [
  "2001:db8::8:800:200c:417a",
  "2001:DB8:0:0:8:800:200C:417A",
  "2001:0db8::0008:0800:200c:417a",
];

/** Messages that cannot become rows: they show what the quarantine looks like. */
const BROKEN = [
  { foo: "oops, wrong type of message" },
  { user_id: "user-07", ip: ["203.0.113.7"], device_id: "593-47-5928", app_version: "2.3.0" },
  { user_id: "user-12", ip: "203.0.113.12", device_id: "127-42-0862", app_version: "latest" },
];

/** The message bodies, in the order in which they are sent. */
export function sampleBodies(): string[] {
  const logins = Array.from({ length: 100 - BROKEN.length }, (_, i) => login(i));
  const bodies: unknown[] = [...logins];
  for (const [i, message] of BROKEN.entries()) bodies.splice(20 + 30 * i, 0, message);
  return bodies.map((body) => JSON.stringify(body));
}

function login(i: number) {
  const user = (i * 7) % USERS;
  const common = {
    user_id: `user-${String(user).padStart(2, "0")}`,
    app_version: VERSIONS[i % VERSIONS.length],
    locale: LOCALES[(i * 3) % LOCALES.length],
  };
  const type = DEVICE_TYPES[user % DEVICE_TYPES.length];
  // Two users in five share a household's address; a few share a device; some addresses are IPv6.
  const ip =
    i % 9 === 4 ? IPV6[i % IPV6.length] : `203.0.113.${user % 5 < 2 ? 200 + (user % 4) : user}`;
  const device = `${100 + (user % 33)}-${10 + (user % 89)}-${String(user * 211 + 1000).slice(-4)}`;
  const deviceId = user % 11 === 3 ? "shared-tablet-01" : device;
  // One in ten comes with its device nested, as newer clients send it.
  return i % 10 === 9
    ? { ...common, ip, device: { id: deviceId, type } }
    : { ...common, device_type: type, ip, device_id: i % 25 === 24 ? null : deviceId };
}
