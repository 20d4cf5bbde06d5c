// SQLSTATEs by name: all of veil's own, which begin with VL and are raised by its functions in sql/;
// and those of PostgreSQL that the program branches on. A test compares veil's own with sql/.

/** The login has made no such request, or not for this message or body. */
export const NO_SUCH_REQUEST = "VL001";
/** The request was recorded by this very transaction. */
export const SAME_TRANSACTION = "VL002";
/** The request, or its approval, is too old. */
export const REQUEST_EXPIRED = "VL003";
/** The request is not known to be on disk yet. */
export const NOT_FLUSHED = "VL004";
/** A standby serves no request. */
export const ON_STANDBY = "VL005";
/** An argument is out of its bounds. */
export const INVALID_ARGUMENT = "VL006";
/** The load's key check differs from that of its generation, or is missing. */
export const WRONG_TOKEN_KEY = "VL010";
/** The generation of the token key is not registered. */
export const UNKNOWN_GENERATION = "VL011";
/** Another data key is registered under this id. */
export const DATA_KEY_CONFLICT = "VL012";
/** A row has a token whose original was not sent, and the vault does not have it. */
export const ORIGINALS_LACKING = "VL013";
/** The arrays of a load are null, of unequal length, or no plain lists. */
export const MALFORMED_LOAD = "VL014";
/** The function needs the isolation level READ COMMITTED. */
export const WRONG_ISOLATION = "VL015";
/** public.user_logins took fewer rows or changes than were given. */
export const ROWS_LOST = "VL016";
/** A trigger refuses to update, delete or truncate. */
export const APPEND_ONLY = "VL020";
/** The policy, or the command, wants a reason. */
export const REASON_REQUIRED = "VL030";
/** The request waits for approval. */
export const APPROVAL_PENDING = "VL031";
/** The request was denied. */
export const APPROVAL_DENIED = "VL032";
/** The purpose is missing, or the policy does not allow it. */
export const PURPOSE_REFUSED = "VL033";
/** The session goes by another login than the one it connected as. */
export const BORROWED_LOGIN = "VL034";
/** The login would ask for more than its budget. */
export const OVER_BUDGET = "VL035";
/** Nobody decides on a request of his own. */
export const OWN_REQUEST = "VL036";
/** The request waits for no decision and no review. */
export const NOTHING_TO_DECIDE = "VL037";
/** A legal hold stands against it. */
export const UNDER_HOLD = "VL040";
/** The value of a canary is in use, or was. */
export const VALUE_IN_USE = "VL041";
/** There is no such request, hold or canary. */
export const NOT_FOUND = "VL042";
/** Chaining was refused: it was not a statement of its own, or the chain was altered. */
export const NOT_CHAINABLE = "VL043";
/** public.user_logins was there before veil. */
export const TABLE_IN_THE_WAY = "VL090";
/** The database was made by a veil from before the steps. */
export const MADE_BY_OLD_VEIL = "VL091";

// PostgreSQL's.
export const CHECK_VIOLATION = "23514";
export const READ_ONLY = "25006";
export const NO_SUCH_DATABASE = "3D000";
export const NO_SUCH_SCHEMA = "3F000";
/** Something else depends on what is to be dropped. */
export const DEPENDED_ON = "2BP01";
export const SERIALIZATION_FAILURE = "40001";
export const DEADLOCK = "40P01";
export const INSUFFICIENT_PRIVILEGE = "42501";
export const NO_SUCH_FUNCTION = "42883";
export const NO_SUCH_TABLE = "42P01";
export const LOCK_NOT_AVAILABLE = "55P03";
export const CANCELED = "57014";
