// What became of a statement that may be refused: a test compares SQLSTATEs, not messages.
import postgres from "postgres";

/** "allowed", or the SQLSTATE of the refusal. */
export async function outcome(work: PromiseLike<unknown>): Promise<string> {
  try {
    await work;
    return "allowed";
  } catch (error) {
    if (error instanceof postgres.PostgresError) return error.code;
    throw error;
  }
}

const undo = new Error("undone on purpose");

/** The same for one statement in a transaction that is rolled back however it ends. */
export async function attempt(sql: postgres.Sql, statement: string): Promise<string> {
  return await outcome(
    sql
      .begin(async (transaction) => {
        await transaction.unsafe(statement);
        throw undo;
      })
      .catch((error: unknown) => {
        if (error !== undo) throw error;
      }),
  );
}

export const serverVersion = async (sql: postgres.Sql): Promise<number> => {
  const [row] = await sql`select current_setting('server_version_num')::integer as version`;
  return Number(row?.version);
};
