// The published vectors, typed. Imported and not read, so that a runtime needs no permission for them.
import type { AgeKind } from "../../vault/age.ts";
import type { Field } from "../../vault/canonical.ts";
import type { Place } from "../../vault/seal.ts";
import auditJson from "./audit.json" with { type: "json" };
import canonicalJson from "./canonical.json" with { type: "json" };
import keyLinesJson from "./key-lines.json" with { type: "json" };
import keysJson from "./keys.json" with { type: "json" };
import proofsJson from "./proofs.json" with { type: "json" };
import recipientsJson from "./recipients.json" with { type: "json" };
import sealsJson from "./seals.json" with { type: "json" };
import tokensJson from "./tokens.json" with { type: "json" };
import wrappedJson from "./wrapped.json" with { type: "json" };

export type KeyVectors = {
  readonly about: string;
  readonly keys: readonly {
    readonly generation: number;
    readonly tokenKey: string;
    readonly subkeys: {
      readonly "veil/v1/token/ip": string;
      readonly "veil/v1/token/device_id": string;
      readonly "veil/v1/data-key": string;
      readonly "veil/v1/key-check": string;
    };
  }[];
};

export type CanonicalVectors = {
  readonly about: string;
  readonly accept: readonly {
    readonly field: Field;
    readonly value: string;
    readonly canonical: string;
  }[];
  readonly reject: readonly { readonly why: string; readonly value: string }[];
};

export type TokenVectors = {
  readonly about: string;
  readonly tokens: readonly {
    readonly generation: number;
    readonly tokenKey: string;
    readonly field: Field;
    readonly value: string;
    readonly token: string;
  }[];
  readonly accept: readonly {
    readonly text: string;
    readonly field: Field;
    readonly generation: number;
  }[];
  readonly reject: readonly { readonly why: string; readonly text: string }[];
};

export type KeyLineVectors = {
  readonly about: string;
  readonly accept: readonly {
    readonly line: string;
    readonly generation: number;
    readonly bytes: string;
    readonly written: string;
  }[];
  readonly reject: readonly { readonly why: string; readonly line: string }[];
};

export type RecipientVectors = {
  readonly about: string;
  readonly accept: readonly { readonly text: string; readonly kind: AgeKind }[];
  readonly reject: readonly { readonly why: string; readonly text: string }[];
};

export type SealVectors = {
  readonly about: string;
  readonly accept: readonly {
    readonly dataKey: string;
    readonly place: Place;
    readonly additionalData: string;
    readonly nonce: string;
    readonly text: string;
    readonly padded: string;
    readonly sealed: string;
  }[];
  readonly reject: readonly {
    readonly why: string;
    readonly dataKey: string;
    readonly place: Place;
    readonly sealed: string;
  }[];
};

export type ProofVectors = {
  readonly about: string;
  readonly accept: readonly {
    readonly verifyKey: string;
    readonly id: string;
    readonly dataKey: string;
    readonly proof: string;
  }[];
  readonly reject: readonly {
    readonly why: string;
    readonly verifyKey: string;
    readonly id: string;
    readonly dataKey: string;
    readonly proof: string;
  }[];
};

export type WrappedVectors = {
  readonly about: string;
  readonly WARNING: string;
  readonly files: readonly {
    readonly kind: AgeKind;
    readonly recipients: readonly string[];
    /** Each of them opens the file alone. */
    readonly identities: readonly string[];
    readonly dataKey: string;
    readonly wrapped: string;
  }[];
};

export type AuditVectors = {
  readonly about: string;
  readonly chain: string;
  readonly genesis: string;
  readonly entries: readonly {
    readonly position: string;
    readonly id: string;
    readonly at: string | null;
    readonly login: string | null;
    readonly loginOid: number | null;
    readonly role: string | null;
    readonly address: string | null;
    readonly action: string | null;
    readonly request: string | null;
    readonly tokens: readonly (string | null)[] | null;
    readonly messageIds: readonly (string | null)[] | null;
    readonly items: number | null;
    readonly reason: string | null;
    readonly details: string | null;
    readonly bytes: string;
    readonly hash: string;
  }[];
  readonly accept: readonly CheckpointVector[];
  readonly reject: readonly (CheckpointVector & { readonly why: string })[];
};

type CheckpointVector = {
  readonly secretKey: string;
  readonly publicKey: string;
  readonly chain: string;
  readonly position: string;
  readonly entry: string;
  readonly hash: string;
  readonly madeAt: string;
  readonly marks: readonly (readonly string[])[];
  readonly bytes: string;
  readonly signature: string;
};

export const audit: AuditVectors = auditJson;
export const keys: KeyVectors = keysJson;
export const canonical = canonicalJson as CanonicalVectors;
export const tokens = tokensJson as TokenVectors;
export const keyLines: KeyLineVectors = keyLinesJson;
export const recipients = recipientsJson as RecipientVectors;
export const seals = sealsJson as SealVectors;
export const proofs: ProofVectors = proofsJson;
export const wrapped = wrappedJson as WrappedVectors;
