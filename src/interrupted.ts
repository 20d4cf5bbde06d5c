/** A person pressed Ctrl-C, or SIGTERM came: what was begun is put away, and nothing more is said. */
export class Interrupted extends Error {}
