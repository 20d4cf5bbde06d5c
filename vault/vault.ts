// `veil/vault`: the formats of veil for other programs, another service that makes the same tokens
// for one. This list is a promise: what stands here keeps its name and meaning within a version of
// the formats. Nothing inside veil imports it.
export {
  type AgeKind,
  generateIdentity,
  isIdentity,
  recipientKind,
} from "./age.ts";
export { canonicalBytes, type Field } from "./canonical.ts";
export {
  checkProof,
  type DataKey,
  generateDataKey,
  unwrapDataKey,
  type WrappedDataKey,
  wrapDataKey,
} from "./data-key.ts";
export {
  deriveSubkeys,
  formatKey,
  type GenerationKey,
  generateTokenKey,
  parseKey,
  type Subkeys,
} from "./keys.ts";
export { MAX_SEALS_PER_DATA_KEY, open, type Place, seal } from "./seal.ts";
export { makeToken, parseToken, type TokenParts } from "./token.ts";
