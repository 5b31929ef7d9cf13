import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { main as host } from "../start";
import type { Main } from "../main";
import { main as probe } from "./probe";
import { main as snapshot } from "./snapshot";

/**
 * For tests: stand-ins for `npx convex` and `npm run`, which take seconds each. Shell functions of
 * those names hand their words to this process, which asks the deployment over the same HTTP API
 * with the same variables, or runs the very script with the same words and variables.
 */
export async function quickTools(
  projectDir: string,
): Promise<{ readonly prelude: string; readonly close: () => Promise<void> }> {
  const server = createServer((socket) => {
    let words = "";
    socket.on("data", (part) => {
      words += part.toString();
      if (!words.endsWith(END)) return;
      const [name = "", url = "", key = "", siteUrl = "", ...rest] = words
        .slice(0, -END.length)
        .split("\0");
      const work =
        name === "npx"
          ? convex({ url, key, words: rest })
          : npm(projectDir, { url, key, siteUrl, words: rest });
      work.then(
        ({ code, output }) => socket.end(`${code}\n${output}`),
        (error: unknown) => socket.end(`1\n${String(error)}\n`),
      );
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const call = `exec 9<>/dev/tcp/127.0.0.1/${port}
    printf '%s\\0' "$FUNCNAME" "\${CONVEX_SELF_HOSTED_URL-}" "\${CONVEX_SELF_HOSTED_ADMIN_KEY-}" "\${RELIABILITY_BASE_URL-}" "$@" >&9
    printf 'end\\0' >&9
    local code; read -r code <&9; cat <&9; return "$code"`;
  return {
    prelude: `npx() { ${call}; }\nnpm() { ${call}; }`,
    close: async () => {
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const END = "\0end\0";

interface Called {
  readonly url: string;
  readonly key: string;
  readonly words: readonly string[];
}

interface Ended {
  readonly code: number;
  readonly output: string;
}

/** `npx convex run <name> [json]`, `env set <name> <value>` and `env remove <name>`. */
async function convex({ words, ...variables }: Called): Promise<Ended> {
  const flags = new Map<string, string>();
  const rest: string[] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? "";
    if (word.startsWith("--")) flags.set(word, words[++i] ?? "");
    else rest.push(word);
  }
  const url = flags.get("--url") ?? variables.url;
  const key = flags.get("--admin-key") ?? variables.key;
  const [program, command, ...args] = rest;
  const [first = "", second, third] = args;
  if (program === "convex" && command === "run" && args.length <= 2) {
    const call = { path: first, args: JSON.parse(second ?? "{}") as unknown, format: "json" };
    const { value } = (await post(`${url}/api/function`, key, call)) as { value?: unknown };
    return { code: 0, output: `${JSON.stringify(value, null, 2)}\n` };
  }
  const isSet = first === "set" && args.length === 3;
  const isRemove = first === "remove" && args.length === 2;
  if (program !== "convex" || command !== "env" || !(isSet || isRemove))
    throw new Error(`unknown: npx ${words.join(" ")}`);
  const changes = [{ name: second, value: third ?? null }];
  await post(`${url}/api/update_environment_variables`, key, { changes });
  return { code: 0, output: "" };
}

async function post(url: string, key: string, body: object): Promise<unknown> {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Convex ${key}` },
    body: JSON.stringify(body),
  });
  const answer = (await response.json()) as { readonly status?: string };
  if (response.ok && answer.status !== "error") return answer;
  throw new Error(`${response.status} ${JSON.stringify(answer)}`);
}

const SCRIPTS: Readonly<Record<string, Main>> = {
  host,
  "reliability:probe": probe,
  "reliability:snapshot": snapshot,
};

/** `npm run -s <script> [-- words]`, in this process. */
async function npm(
  projectDir: string,
  { words, url, key, siteUrl }: Called & { readonly siteUrl: string },
): Promise<Ended> {
  const [run, quiet, name = "", dashes = "--", ...argv] = words;
  const script = Object.hasOwn(SCRIPTS, name) ? SCRIPTS[name] : undefined;
  if (run !== "run" || quiet !== "-s" || dashes !== "--" || script === undefined)
    throw new Error(`unknown: npm ${words.join(" ")}`);
  const lines: string[] = [];
  const processEnvironment = {
    CONVEX_SELF_HOSTED_URL: url,
    CONVEX_SELF_HOSTED_ADMIN_KEY: key,
    RELIABILITY_BASE_URL: siteUrl,
  };
  const code = await script(argv, {
    projectDir,
    print: (line) => lines.push(line),
    printError: (line) => lines.push(line),
    processEnvironment,
    stopped: new Promise(() => undefined),
  });
  return { code, output: `${lines.join("\n")}\n` };
}
