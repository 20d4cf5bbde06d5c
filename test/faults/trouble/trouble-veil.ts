// veil, but for how long it waits: the first argument says that, as JSON. The others are veil's own.
import { main } from "../../../src/cli.ts";

const [waits = "{}"] = process.argv.splice(2, 1);
await main(JSON.parse(waits));
