// What the command line has to know of workers before it knows which command runs.

/** The hidden command that a worker is started with. */
export const WORKER_COMMAND = "worker";

/** Each holds up to 2,000 messages, and SQS lets 120,000 be in flight: this is a quarter of them. */
export const MOST_WORKERS = 16;
