import { openDatabase } from "../../../src/host/engine";

/**
 * Writes pairs of documents as fast as it can and prints the number of each pair once its commit
 * has resolved, until it is killed. Run as a program of its own: directory, first number.
 */
const [dir = "", first = "0"] = process.argv.slice(2);
const CLIENTS = 16;

const database = await openDatabase({ dir });
let next = Number(first);

async function client(): Promise<never> {
  for (;;) {
    const pair = next++;
    const transaction = database.begin("mutation");
    for (const half of ["a", "b"]) {
      const value = { pair, half, filling: "x".repeat(pair % 200) };
      await transaction.asyncSyscall("1.0/insert", JSON.stringify({ table: "halves", value }));
    }
    await database.commit(transaction);
    transaction.end();
    process.stdout.write(`${pair}\n`);
  }
}

process.stdout.write("ready\n");
await Promise.all(Array.from({ length: CLIENTS }, client));
