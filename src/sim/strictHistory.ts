import { list, parseJson, record, text } from "./json";

/**
 * What is wrong with the messages of a request, in the words of a provider that takes nothing else
 * than its own form; null where all is well. Several behind OpenRouter check like this, and refuse a
 * thread for good once its history holds one bad answer.
 */
export function historyFault(
  messages: readonly Readonly<Record<string, unknown>>[],
): string | null {
  const seen = new Set<string>();
  let open = new Set<string>();
  const first = messages.find(({ role }) => role !== "system");
  if (first !== undefined && first["role"] !== "user") return "The first message must be a user's.";
  for (const [i, message] of messages.entries()) {
    if (message["role"] === "user" && messages[i - 1]?.["role"] === "tool")
      return "Unexpected role user after role tool.";
    if (message["role"] === "tool") {
      const id = text(message["tool_call_id"]);
      if (!open.delete(id))
        return `Unexpected tool_call_id "${id}": no call before it waits for it.`;
      continue;
    }
    if (open.size > 0) return unanswered(open);
    open = new Set();
    for (const call of list(message["tool_calls"]).map(record)) {
      const fault = callFault(call, seen);
      if (fault !== null) return fault;
      open.add(text(call["id"]));
    }
    if (isBlank(message["content"])) return "Text must contain more than white space.";
    if (open.size === 0 && hasNoContent(message)) return "A message has neither content nor calls.";
  }
  return open.size > 0 ? unanswered(open) : null;
}

const unanswered = (open: ReadonlySet<string>): string =>
  `Each of tool_calls must be followed by its result; missing: ${[...open].join(", ")}.`;

/** Empty is no text; a text of white space alone is one that some refuse. */
const isBlank = (content: unknown): boolean =>
  typeof content === "string" && content !== "" && content.trim() === "";

function hasNoContent({ content }: Readonly<Record<string, unknown>>): boolean {
  return content === null || content === undefined || content === "";
}

function callFault(call: Readonly<Record<string, unknown>>, seen: Set<string>): string | null {
  const id = text(call["id"]);
  if (id === "" || seen.has(id)) return `Duplicate or missing tool call id "${id}".`;
  seen.add(id);
  const { arguments: source, name } = record(call["function"]);
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(text(name))) return `Invalid function name "${text(name)}".`;
  const args = typeof source === "string" ? parseJson(source) : undefined;
  if (typeof args !== "object" || args === null || Array.isArray(args))
    return `The arguments of "${id}" are not a JSON object.`;
  if (/\\ud[89a-f]/i.test(JSON.stringify(args))) return `The arguments of "${id}" are not Unicode.`;
  return null;
}
