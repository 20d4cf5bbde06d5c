"""Opens wrapped.json without any age library: the age format, X25519, X-Wing and HPKE by hand.

    pip install 'cryptography>=48' && python3 test/vectors/check_wrapped.py

For the post-quantum files above all, which age before 1.3 does not know. `cryptography` gives the
primitives only (X25519, ML-KEM-768, ChaCha20-Poly1305).
"""

import base64
import hashlib
import hmac
import json
import pathlib
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def identity_seed(identity):
    """The 32 bytes of an identity; its checksum is not looked at."""
    words = identity.lower().rpartition("1")[2][:-6]
    bits = "".join(f"{CHARSET.index(c):05b}" for c in words)
    return int(bits[:256], 2).to_bytes(32, "big")


def unpadded(text):
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def extract(salt, key):
    return hmac.digest(salt or bytes(32), key, "sha256")


def expand(key, info, length):
    return hmac.digest(key, info + b"\x01", "sha256")[:length]


def public(private):
    return private.public_key().public_bytes_raw()


def read(file):
    """Stanzas as (arguments, body), the MAC and what it covers, and the payload."""
    header, _, rest = file.partition(b"\n--- ")
    mac, _, payload = rest.partition(b"\n")
    lines = header.decode("ascii").split("\n")
    assert lines[0] == "age-encryption.org/v1"
    stanzas = []
    for line in lines[1:]:
        if line.startswith("-> "):
            stanzas.append((line[3:].split(" "), ""))
        else:
            stanzas[-1] = (stanzas[-1][0], stanzas[-1][1] + line)
    return [(args, unpadded(b)) for args, b in stanzas], unpadded(mac.decode()), header + b"\n---", payload


def classic_key(seed, share):
    private = X25519PrivateKey.from_private_bytes(seed)
    secret = private.exchange(X25519PublicKey.from_public_bytes(share))
    salt = share + public(private)
    return expand(extract(salt, secret), b"age-encryption.org/v1/X25519", 32), bytes(12)


def xwing(seed, encapsulated):
    expanded = hashlib.shake_256(seed).digest(96)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
    share = encapsulated[1088:]
    secret = mlkem.decapsulate(encapsulated[:1088])
    classic = x25519.exchange(X25519PublicKey.from_public_bytes(share))
    return hashlib.sha3_256(secret + classic + share + public(x25519) + b"\\.//^\\").digest()


def hpke_key(shared):
    """RFC 9180, base mode: X-Wing (647a), HKDF-SHA-256 (0001), ChaCha20-Poly1305 (0003)."""
    suite = b"HPKE" + bytes.fromhex("647a00010003")
    info = b"age-encryption.org/mlkem768x25519"

    def labeled_extract(salt, label, key):
        return extract(salt, b"HPKE-v1" + suite + label + key)

    def labeled_expand(key, label, context, length):
        return expand(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context, length)

    context = b"\0" + labeled_extract(b"", b"psk_id_hash", b"") + labeled_extract(b"", b"info_hash", info)
    secret = labeled_extract(shared, b"secret", b"")
    return labeled_expand(secret, b"key", context, 32), labeled_expand(secret, b"base_nonce", context, 12)


def open_file(file, identity):
    seed = identity_seed(identity)
    stanzas, mac, covered, payload = read(file)
    for args, body in stanzas:
        encapsulated = unpadded(args[1])
        if args[0] == "X25519":
            key, nonce = classic_key(seed, encapsulated)
        else:
            assert args[0] == "mlkem768x25519"
            key, nonce = hpke_key(xwing(seed, encapsulated))
        try:
            file_key = ChaCha20Poly1305(key).decrypt(nonce, body, None)
        except InvalidTag:
            continue
        assert mac == hmac.digest(expand(extract(b"", file_key), b"header", 32), covered, "sha256")
        stream = expand(extract(payload[:16], file_key), b"payload", 32)
        # One chunk, the last: its counter is 0, its flag 1.
        return ChaCha20Poly1305(stream).decrypt(bytes(11) + b"\x01", payload[16:], None)
    return None


vectors = json.loads((pathlib.Path(__file__).parent / "wrapped.json").read_text("ascii"))
failed = False
for index, v in enumerate(vectors["files"]):
    for identity in v["identities"]:
        good = open_file(bytes.fromhex(v["wrapped"]), identity) == bytes.fromhex(v["dataKey"])
        failed = failed or not good
        print(f"wrapped.json: file {index}, {v['kind']}: {'opens' if good else 'DOES NOT OPEN'}")
sys.exit(1 if failed else 0)
