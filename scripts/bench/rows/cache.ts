import { conflictLines } from "../contention";
import { Backend } from "../engine/backend";
import { costOf } from "../engine/cost";
import { atMost, mean, type Bench, type Figure, type Row } from "../figures";
import { arrive, COUNTED, simulated } from "../loads";
import { TOOL_VARIABLES, upstreamOf } from "../ours/tool";
import { produced } from "../peers/cache";

const CALL_TOOL = "bench:callTool";

/** Documents a hit reads: the second call of the same tool, or fetch of the same key. */
async function hits(bench: Bench): Promise<Figure> {
  const backend = new Backend(bench.ours, { ...COUNTED, variables: TOOL_VARIABLES });
  upstreamOf(backend);
  const ours = await secondCall(backend, CALL_TOOL, { query: "espresso" });
  const peers = new Backend(bench.peers, COUNTED);
  const peer = await secondCall(peers, "cache:fetchCached", { key: "espresso" });
  return atMost("T14.hit", "cache hit: documents read", { ours, peer, limit: 1 });
}

async function secondCall(
  backend: Backend,
  path: string,
  args: Record<string, string>,
): Promise<number> {
  let from = 0;
  await backend.within(async () => {
    await backend.action(path, args);
    await backend.clock.idle();
    from = backend.calls.length;
    await backend.action(path, args);
  });
  return costOf(backend.calls.slice(from)).usage.documentsRead;
}

interface Stampede {
  readonly runs: number;
  readonly answered: number;
}

async function ourStampede(bench: Bench, seed: number, callers: number): Promise<Stampede> {
  const backend = simulated(bench.ours, seed, TOOL_VARIABLES);
  const upstream = upstreamOf(backend);
  let answered = 0;
  await backend.within(async () => {
    await arrive(backend, { burst: callers }, async () => {
      const kind = await backend.action(CALL_TOOL, { query: "espresso" });
      if (kind === "result") answered += 1;
    });
  });
  if (seed === bench.seeds[0]) for (const line of conflictLines(backend)) bench.note(line);
  return { runs: upstream.asked, answered: answered / callers };
}

async function theirStampede(bench: Bench, seed: number, callers: number): Promise<number> {
  const backend = simulated(bench.peers, seed);
  produced.times = 0;
  await backend.within(async () => {
    await arrive(backend, { burst: callers }, async () => {
      await backend.action("cache:fetchCached", { key: "espresso" }).catch(() => undefined);
    });
  });
  return produced.times;
}

async function stampedes(bench: Bench): Promise<readonly Figure[]> {
  const figures: Figure[] = [await hits(bench)];
  for (const callers of [20, 1_000]) {
    const ours: Stampede[] = [];
    const theirs: number[] = [];
    for (const seed of bench.seeds) {
      ours.push(await ourStampede(bench, seed, callers));
      theirs.push(await theirStampede(bench, seed, callers));
    }
    figures.push(
      atMost(`T14.runs@${callers}`, `producer runs for ${callers} concurrent misses`, {
        ours: mean(ours.map(({ runs }) => runs)),
        peer: mean(theirs),
        limit: 1,
      }),
      atMost(`T14.unanswered@${callers}`, `callers of those ${callers} without the answer, %`, {
        ours: 100 * (1 - mean(ours.map(({ answered }) => answered))),
        limit: 0,
      }),
    );
  }
  return figures;
}

export const cache: readonly Row[] = [{ id: "T14", measure: stampedes }];
