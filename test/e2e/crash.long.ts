import { expect, test } from "vitest";
import { api } from "../../convex/_generated/api";
import { openIssuer } from "../../src/host/devIssuer";
import { DEV_ISSUER } from "../../scripts/issuer";
import { clientOf, operatorOf, until } from "./backend";
import { crashRound } from "./crash";
import { scratch, start } from "./process";
import {
  type Frame,
  parseFrames,
  postChat,
  Reader,
  resume,
  type Site,
  startOf,
  terminals,
  textOf,
} from "./sse";

const ROUNDS = 5;

test("deliveries survive kill -9 at one moment after another, on the same data", async () => {
  const { dir, remove } = scratch("crash-long");
  for (let round = 0; round < ROUNDS; round++)
    await crashRound(dir, {
      prefix: `round${round}`,
      acknowledgedMin: 1 + Math.floor(Math.random() * 400),
    });
  remove();
  expect.hasAssertions();
});

const USERS = Array.from({ length: 8 }, (_, i) => `crashed${i}`);
const REAPED_LOOKS_MAX = 2_000;

test("a stream whose server was killed ends as an error, and its thread goes on", async () => {
  const { dir, remove } = scratch("crash-chat");
  const issuer = await openIssuer(dir, DEV_ISSUER);
  const token = async (user: string) => await issuer.token(user);
  const killed = await start(dir);
  const before: Site = { siteUrl: killed.deployment.siteUrl, token };
  const readers = await Promise.all(
    USERS.map(async (user, i) => {
      const content = `[[words:9000]] [[slow:${60 + 10 * i}]] [[reason]] never ends`;
      return new Reader(await postChat(before, { message: { content } }, { user }));
    }),
  );
  // Each is in another place of its answer; some have stored chunks, some only what admission did.
  await Promise.all(
    readers.map(async (reader, i) => {
      await reader.until((frames) => Math.max(...frames.map(({ id }) => id ?? 0)) > 3 * i);
    }),
  );
  await killed.kill("SIGKILL");
  for (const reader of readers) await reader.end().catch(() => undefined);

  const server = await start(dir);
  const after: Site = { siteUrl: server.deployment.siteUrl, token };
  await Promise.all(
    readers.map(async ({ frames: seen }, i) => {
      const user = USERS[i] ?? "";
      const { threadId, messageId, streamId } = startOf(seen);
      const lastEventId = Math.max(...seen.map(({ id }) => id ?? 0));
      // Follows it live until the reaper, half a minute after the last sign of life, has ended it.
      const rest = parseFrames(await (await resume(after, streamId, { lastEventId, user })).text());
      const kept: readonly Frame[] = [...seen.slice(0, lastEventId), ...rest];
      expect(terminals(kept).map(({ event }) => [event.type, event.code])).toEqual([
        ["error", "internal_error"],
      ]);
      const whole = parseFrames(await (await resume(after, streamId, { user })).text());
      expect(whole.map(({ id }) => id)).toEqual(whole.map((_, k) => k + 1));
      expect(whole.map(({ event }) => event)).toEqual(kept.map(({ event }) => event));
      const client = await clientOf({ host: server.deployment, token }, user);
      const messages = await client.query(api.messages.list, { threadId });
      expect(messages.find(({ _id }) => _id === messageId)).toMatchObject({
        status: "error",
        ending: "worker_lost",
        content: textOf(kept),
      });
      const next = await postChat(
        after,
        { threadId, message: { content: "[[words:3]] and now?" } },
        { user },
      );
      const frames = parseFrames(await next.text());
      expect(terminals(frames).map(({ event }) => event.type)).toEqual(["done"]);
      expect(startOf(frames).streamId).not.toBe(streamId);
    }),
  );
  // No slot is left held by the dead.
  await until(
    () =>
      operatorOf(server.deployment)<{ bulkheads: { activeLeaseCount: number } }>(
        "ops:getReliabilitySnapshot",
      ),
    ({ bulkheads }) => bulkheads.activeLeaseCount === 0,
    REAPED_LOOKS_MAX,
  );
  expect((await server.kill("SIGTERM")).code).toBe(0);
  remove();
});
