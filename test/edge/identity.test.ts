import { convexTest } from "convex-test";
import { makeFunctionReference } from "convex/server";
import { expect, test } from "vitest";
import { api } from "../../convex/_generated/api";
import { requireUserId } from "../../convex/model/access";
import schema from "../../convex/schema";
import { refused } from "./backend";

const modules = import.meta.glob(["/convex/**/*.{ts,js}", "!/convex/**/*.test.ts"]);

const THREAD = { threadId: "t" };
const MESSAGE = { ...THREAD, messageId: "m" };

/** Every function that anyone on the internet may call, with arguments it would accept. */
const PUBLIC: Readonly<Record<string, readonly [Kind, Record<string, unknown>]>> = {
  "chat:streamAnswer": ["action", THREAD],
  "messages:abort": ["mutation", MESSAGE],
  "messages:deleteAfter": ["mutation", MESSAGE],
  "messages:list": ["query", THREAD],
  "messages:send": ["mutation", { ...THREAD, content: "hello" }],
  "messages:update": ["mutation", { ...MESSAGE, content: "hello" }],
  "streamSessions:abort": ["mutation", { streamId: "s" }],
  "streamSessions:start": ["mutation", THREAD],
  "threads:create": ["mutation", {}],
  "threads:createShareFork": ["mutation", { shareToken: "x" }],
  "threads:createShareToken": ["mutation", THREAD],
  "threads:get": ["query", THREAD],
  "threads:list": ["query", {}],
  "threads:remove": ["mutation", THREAD],
  "threads:rename": ["mutation", { ...THREAD, title: "x" }],
  "threads:togglePinned": ["mutation", THREAD],
};
type Kind = "query" | "mutation" | "action";

// The public original: uploads, paid calls and threads for anyone.
test.each(Object.entries(PUBLIC))(
  "%s is refused without an identity",
  async (name, [kind, args]) => {
    const t = convexTest({ schema, modules });
    switch (kind) {
      case "query":
        await refused(t.query(makeFunctionReference<"query">(name), args), "unauthorized");
        return;
      case "mutation":
        await refused(t.mutation(makeFunctionReference<"mutation">(name), args), "unauthorized");
        return;
      case "action":
        await refused(t.action(makeFunctionReference<"action">(name), args), "unauthorized");
        return;
    }
  },
);

const ODD = [7, 0, true, [], ["alice"], { id: "alice" }, "", "\ud800"];

test.each(ODD)("a token whose subject is %j is nobody's", async (subject) => {
  const odd = convexTest({ schema, modules }).withIdentity({ subject: subject as string });
  await refused(odd.query(api.threads.list, {}), "unauthorized");
  await refused(odd.mutation(api.threads.create, {}), "unauthorized");
  await refused(odd.action(api.chat.streamAnswer, THREAD), "unauthorized");
});

test("a token that the platform cannot parse is no token", async () => {
  const auth = { getUserIdentity: () => Promise.reject(new Error("could not parse the token")) };
  await refused(requireUserId({ auth }), "unauthorized");
});

test("there is no public function besides these", async () => {
  const found: string[] = [];
  for (const [path, load] of Object.entries(modules)) {
    if (path.includes("/_generated/")) continue;
    const exports = (await load()) as Record<string, unknown>;
    for (const [name, value] of Object.entries(exports))
      if ((Object(value) as { isPublic?: boolean }).isPublic === true)
        found.push(`${path.replace("/convex/", "").replace(".ts", "")}:${name}`);
  }
  expect(found.sort()).toEqual(Object.keys(PUBLIC).sort());
});
