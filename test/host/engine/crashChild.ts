import { openDatabase } from "../../../src/host/engine";
import { partsOf } from "./crashSets";

/**
 * Writes sets of documents as fast as it can, each in one commit, and prints the number of a set
 * once its commit has resolved, until it is killed. Run as a program: directory, first number.
 */
const [dir = "", first = "0"] = process.argv.slice(2);
const CLIENTS = 16;

const database = await openDatabase({ dir });
let next = Number(first);

async function client(): Promise<never> {
  for (;;) {
    const set = next++;
    const transaction = database.begin("mutation");
    for (let part = 0; part < partsOf(set); part++) {
      const value = { set, part, filling: "x".repeat(set % 200) };
      await transaction.asyncSyscall("1.0/insert", JSON.stringify({ table: "parts", value }));
    }
    await database.commit(transaction);
    transaction.end();
    process.stdout.write(`${set}\n`);
  }
}

process.stdout.write("ready\n");
await Promise.all(Array.from({ length: CLIENTS }, client));
