"""Checks the vectors against a third implementation: Python 3.9.5 or newer, standard library only.

    python3 test/vectors/check.py

Prints a line a file and exits 0, or names every vector that disagrees and exits 1. The standard
library has no AES: the few lines of it below are for vectors, not for secrets (they are not constant
in time).
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
failures = []


def check(good, file, index, what):
    if not good:
        failures.append(f"{file}: vector {index}: {what}")


def load(file):
    return json.loads((HERE / file).read_text("ascii"))


# Keys and tokens


def hkdf(key, label, length):
    """RFC 5869; no salt is a salt of zeros. One block is enough for 32 bytes."""
    extracted = hmac.digest(bytes(32), key, "sha256")
    return hmac.digest(extracted, label.encode("ascii") + b"\x01", "sha256")[:length]


def canonical(field, value):
    text = value.encode("utf-8")  # raises for a lone surrogate
    if field == "device_id":
        return text
    try:
        # `ipaddress` reads a zone id, which is no part of an address.
        address = None if "%" in value else ipaddress.ip_address(value)
    except ValueError:
        address = None
    if address is None:
        return b"\x30" + text
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return (b"\x34" if address.version == 4 else b"\x36") + address.packed


def make_token(token_key, generation, field, value):
    subkey = hkdf(token_key, f"veil/v1/token/{field}", 32)
    mac = hmac.digest(subkey, canonical(field, value), "sha256")[:16]
    prefix = "ip" if field == "ip" else "dev"
    return f"{prefix}{generation}_{base64.b32encode(mac).decode().rstrip('=').lower()}"


TOKEN = re.compile(r"(ip|dev)(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]", re.ASCII)


def parse_token(text):
    match = TOKEN.fullmatch(text)
    if match is None:
        return None
    return ("ip" if match[1] == "ip" else "device_id", int(match[2]))


def parse_key(line):
    match = re.fullmatch(r"(?:([1-9][0-9]{0,9}):)?([A-Za-z0-9+/]{43}=)", line)
    if match is None:
        return None
    generation = int(match[1] or "1")
    try:
        key = base64.b64decode(match[2], validate=True)
    except binascii.Error:
        return None
    if generation > 2**31 - 1 or base64.b64encode(key).decode() != match[2]:
        return None
    return generation, key


# Recipients: bech32, BIP 173

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def bech32_checksum(prefix, words):
    check = 1
    for word in [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + words:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ word
        for i, generator in enumerate(
            (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
        ):
            check ^= generator if top >> i & 1 else 0
    return check


def recipient_kind(text):
    prefix, one, data = text.rpartition("1")
    lengths = {"age": ("classic", 32), "age1pq": ("post-quantum", 1216)}
    if one == "" or prefix not in lengths or any(c not in CHARSET for c in data):
        return None
    words = [CHARSET.index(c) for c in data]
    if len(words) < 6 or bech32_checksum(prefix, words) != 1:
        return None
    bits = "".join(f"{word:05b}" for word in words[:-6])
    kind, length = lengths[prefix]
    padding = bits[length * 8 :]
    return kind if len(bits) >= length * 8 and len(padding) < 5 and "1" not in padding else None


# Seals: AES-256 (FIPS 197) and GCM (NIST SP 800-38D)


def times(a, b):
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def make_sbox():
    box = []
    for byte in range(256):
        inverse = next((i for i in range(256) if times(byte, i) == 1), 0)
        rotated = inverse * 0x101
        mixed = inverse ^ rotated >> 4 ^ rotated >> 5 ^ rotated >> 6 ^ rotated >> 7
        box.append((mixed ^ 0x63) & 0xFF)
    return box


SBOX = make_sbox()


def expand_key(key):
    words = [list(key[i : i + 4]) for i in range(0, 32, 4)]
    constant = 1
    for i in range(8, 60):
        word = words[-1]
        if i % 8 == 0:
            word = [SBOX[b] for b in word[1:] + word[:1]]
            word[0] ^= constant
            constant = times(constant, 2)
        elif i % 8 == 4:
            word = [SBOX[b] for b in word]
        words.append([a ^ b for a, b in zip(words[-8], word)])
    return [sum(words[i : i + 4], []) for i in range(0, 60, 4)]


def encrypt_block(round_keys, block):
    state = [a ^ b for a, b in zip(block, round_keys[0])]
    for number, round_key in enumerate(round_keys[1:], 1):
        state = [SBOX[state[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if number < 14:
            state = [
                times(state[c + r], 2)
                ^ times(state[c + (r + 1) % 4], 3)
                ^ state[c + (r + 2) % 4]
                ^ state[c + (r + 3) % 4]
                for c in range(0, 16, 4)
                for r in range(4)
            ]
        state = [a ^ b for a, b in zip(state, round_key)]
    return bytes(state)


def ghash(subkey, data):
    h, result = int.from_bytes(subkey, "big"), 0
    for i in range(0, len(data), 16):
        x = result ^ int.from_bytes(data[i : i + 16], "big")
        result, v = 0, h
        for bit in range(127, -1, -1):
            result ^= v if x >> bit & 1 else 0
            v = v >> 1 ^ (0xE1 << 120 if v & 1 else 0)
    return result.to_bytes(16, "big")


def open_gcm(key, nonce, body, tag, data):
    round_keys = expand_key(key)
    zeros = lambda text: bytes(-len(text) % 16)
    lengths = (len(data) * 8).to_bytes(8, "big") + (len(body) * 8).to_bytes(8, "big")
    hashed = ghash(
        encrypt_block(round_keys, bytes(16)), data + zeros(data) + body + zeros(body) + lengths
    )
    stream = [
        encrypt_block(round_keys, nonce + (i + 1).to_bytes(4, "big"))
        for i in range(len(body) // 16 + 2)
    ]
    if not hmac.compare_digest(bytes(a ^ b for a, b in zip(hashed, stream[0])), tag):
        return None
    return bytes(a ^ b for a, b in zip(body, b"".join(stream[1:])))


def additional_data(place):
    if place["kind"] == "original":
        return b"veil/v1/original\0" + place["token"].encode()
    return b"veil/v1/quarantine\0" + place["messageId"].encode()


def open_padded(data_key, place, sealed):
    if len(sealed) < 12 + 16 + 16:
        return None
    return open_gcm(data_key, sealed[:12], sealed[12:-16], sealed[-16:], additional_data(place))


def open_seal(data_key, place, sealed):
    padded = open_padded(data_key, place, sealed)
    if padded is None or len(padded) % 16 != 0:
        return None
    text, mark, zeros = padded.rpartition(b"\x80")
    if mark == b"" or any(zeros) or len(zeros) > 15:
        return None
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return None


def prove(verify_key, id, data_key):
    return hmac.digest(verify_key, bytes.fromhex(id.replace("-", "")) + data_key, "sha256")


# The files


def check_keys(file, vectors):
    for i, v in enumerate(vectors["keys"]):
        for label, subkey in v["subkeys"].items():
            derived = hkdf(bytes.fromhex(v["tokenKey"]), label, 8 if "check" in label else 32)
            check(derived.hex() == subkey, file, i, label)
        check(len(v["subkeys"]) == 4, file, i, "four subkeys")


def check_canonical(file, vectors):
    for i, v in enumerate(vectors["accept"]):
        check(canonical(v["field"], v["value"]).hex() == v["canonical"], file, i, v["field"])
    for i, v in enumerate(vectors["reject"]):
        for field in ("ip", "device_id"):
            try:
                canonical(field, v["value"])
                check(False, file, i, v["why"])
            except UnicodeEncodeError:
                pass


def check_tokens(file, vectors):
    for i, v in enumerate(vectors["tokens"]):
        key = bytes.fromhex(v["tokenKey"])
        token = make_token(key, v["generation"], v["field"], v["value"])
        check(token == v["token"], file, i, "token")
        check(parse_token(token) == (v["field"], v["generation"]), file, i, "syntax")
    for i, v in enumerate(vectors["accept"]):
        check(parse_token(v["text"]) == (v["field"], v["generation"]), file, i, "accept")
    for i, v in enumerate(vectors["reject"]):
        check(parse_token(v["text"]) is None, file, i, v["why"])


def check_key_lines(file, vectors):
    for i, v in enumerate(vectors["accept"]):
        key = (v["generation"], bytes.fromhex(v["bytes"]))
        check(parse_key(v["line"]) == key, file, i, "line")
        check(parse_key(v["written"]) == key, file, i, "written")
        check(f"{key[0]}:{base64.b64encode(key[1]).decode()}" == v["written"], file, i, "writing")
    for i, v in enumerate(vectors["reject"]):
        check(parse_key(v["line"]) is None, file, i, v["why"])


def check_recipients(file, vectors):
    for i, v in enumerate(vectors["accept"]):
        check(recipient_kind(v["text"]) == v["kind"], file, i, v["kind"])
    for i, v in enumerate(vectors["reject"]):
        check(recipient_kind(v["text"]) is None, file, i, v["why"])


def check_seals(file, vectors):
    for i, v in enumerate(vectors["accept"]):
        key, sealed = bytes.fromhex(v["dataKey"]), bytes.fromhex(v["sealed"])
        padded = open_padded(key, v["place"], sealed)
        check(padded is not None and padded.hex() == v["padded"], file, i, "padded")
        check(open_seal(key, v["place"], sealed) == v["text"], file, i, "text")
        check(sealed[:12].hex() == v["nonce"], file, i, "nonce")
        check(additional_data(v["place"]).hex() == v["additionalData"], file, i, "additional data")
    for i, v in enumerate(vectors["reject"]):
        opened = open_seal(bytes.fromhex(v["dataKey"]), v["place"], bytes.fromhex(v["sealed"]))
        check(opened is None, file, i, v["why"])


def check_proofs(file, vectors):
    for kind, expected in (("accept", True), ("reject", False)):
        for i, v in enumerate(vectors[kind]):
            proof = prove(bytes.fromhex(v["verifyKey"]), v["id"], bytes.fromhex(v["dataKey"]))
            check((proof.hex() == v["proof"]) is expected, file, i, kind)


# The audit


def audit_field(value):
    return b"\x00" if value is None else b"\x01" + len(value).to_bytes(4, "big") + value


def audit_number(value, length):
    return None if value is None else int(value).to_bytes(length, "big", signed=True)


def audit_text(value):
    return None if value is None else value.encode("utf-8", "surrogatepass")


def audit_list(values):
    if values is None:
        return None
    return len(values).to_bytes(4, "big") + b"".join(audit_field(audit_text(v)) for v in values)


def audit_bytes(v):
    oid = None if v["loginOid"] is None else v["loginOid"].to_bytes(4, "big")
    request = None if v["request"] is None else bytes.fromhex(v["request"].replace("-", ""))
    fields = (
        *(audit_number(v["id"], 8), audit_number(v["at"], 8), audit_text(v["login"]), oid),
        *(audit_text(v["role"]), audit_text(v["address"]), audit_text(v["action"]), request),
        *(audit_list(v["tokens"]), audit_list(v["messageIds"]), audit_number(v["items"], 4)),
        *(audit_text(v["reason"]), audit_text(v["details"])),
    )
    return b"veil/v1/audit-entry" + b"".join(map(audit_field, fields))


def check_audit(file, vectors):
    chain = bytes.fromhex(vectors["chain"].replace("-", ""))
    previous = hashlib.sha256(b"veil/v1/audit-genesis" + chain).digest()
    check(previous.hex() == vectors["genesis"], file, 0, "genesis")
    for i, v in enumerate(vectors["entries"]):
        entry = audit_bytes(v)
        check(entry.hex() == v["bytes"], file, i, "bytes")
        position = int(v["position"]).to_bytes(8, "big")
        previous = hashlib.sha256(b"veil/v1/audit-chain" + previous + position + entry).digest()
        check(previous.hex() == v["hash"], file, i, "hash")
    # The standard library has no Ed25519: only what is signed is checked here.
    for i, v in enumerate(vectors["accept"]):
        signed = b"veil/v1/audit-checkpoint" + bytes.fromhex(v["chain"].replace("-", ""))
        signed += int(v["position"]).to_bytes(8, "big") + int(v["entry"]).to_bytes(8, "big")
        signed += bytes.fromhex(v["hash"]) + v["madeAt"].encode("ascii")
        signed += base64.b64decode(v["publicKey"].split(":")[1])
        signed += len(v["marks"]).to_bytes(4, "big")
        for position, mark in v["marks"]:
            signed += int(position).to_bytes(8, "big") + bytes.fromhex(mark)
        check(signed.hex() == v["bytes"], file, i, "bytes of the checkpoint")


CHECKS = {
    "keys.json": check_keys,
    "canonical.json": check_canonical,
    "tokens.json": check_tokens,
    "key-lines.json": check_key_lines,
    "recipients.json": check_recipients,
    "seals.json": check_seals,
    "proofs.json": check_proofs,
    "audit.json": check_audit,
}

for name, run in CHECKS.items():
    contents = load(name)
    run(name, contents)
    counts = [f"{len(v)} {k}" for k, v in contents.items() if isinstance(v, list)]
    print(f"{name}: {', '.join(counts)}")
for failure in failures:
    print(failure, file=sys.stderr)
sys.exit(1 if failures else 0)
