/** One thing that a prompt can ask of the simulated model. */
interface Directive {
  /** As it is written in a prompt. */
  readonly form: string;
  /** What the model then does. */
  readonly does: string;
}

/**
 * Everything that a prompt can ask of the simulated model, by name: the parser, the help text and the
 * documentation are made from these rows. Whatever else stands in double brackets is ordinary text.
 */
export const DIRECTIVES = {
  tool: {
    form: '`[[tool:search_products {"query":"grinder"}]]`',
    does: "Calls the tool, if it is offered, with the arguments as they are written, JSON or not. Calls with only spaces between them are made in one answer; text between them makes two of it.",
  },
  calls: {
    form: "`[[calls:same-index,no-ids]]`",
    does: "Makes the calls in the manner of other providers; manners can be combined (see below).",
  },
  say: { form: "`[[say:Let me look.]]`", does: "Says this beside the calls, before them." },
  words: { form: "`[[words:500]]`", does: "Answers with so many words." },
  reason: { form: "`[[reason]]`", does: "Reasons before it answers." },
  parts: { form: "`[[parts]]`", does: "Gives its text as a list of parts instead of a string." },
  lines: {
    form: "`[[lines]]`",
    does: "Puts the characters into its text at which some clients end a line: U+0085, U+2028, U+2029.",
  },
  pings: { form: "`[[pings]]`", does: "Sends events without content between the frames." },
  unended: {
    form: "`[[unended]]`",
    does: "Ends the body without the blank line of its last frame.",
  },
  finish: {
    form: "`[[finish:length]]`, `[[finish:content_filter]]`",
    does: "Ends half way for this reason.",
  },
  error: {
    form: "`[[error:503]]`, `[[error:inband]]`, `[[error:inband:429]]`, `[[error:bare]]`, `[[error:text]]`",
    does: "Answers with this status; or with status 200 and an error half way: beside a choice, with a code of its own, without any choice, as a text beside `stop`.",
  },
  eof: { form: "`[[eof]]`", does: "Ends the body half way, without a finish reason." },
  cut: { form: "`[[cut]]`", does: "Breaks the connection within a frame." },
  hang: { form: "`[[hang]]`", does: "Goes silent half way and keeps the connection open." },
  badjson: { form: "`[[badjson]]`", does: "Sends a frame that is broken JSON." },
  empty: { form: "`[[empty]]`", does: "Succeeds without a word." },
  slow: { form: "`[[slow:250]]`", does: "Waits so many milliseconds before each piece of text." },
  wait: { form: "`[[wait:5000]]`", does: "Waits so many milliseconds before the first piece." },
  split: { form: "`[[split:3]]`", does: "Writes so many bytes at a time." },
  only: {
    form: "`[[only:gpt]]`",
    does: "Applies the ending and the pauses to models whose id contains this.",
  },
} as const satisfies Record<string, Directive>;

export type DirectiveName = keyof typeof DIRECTIVES;

/** Manners of making calls, as the value of `calls`, each as some provider does it. */
export const CALL_MANNERS = {
  "same-index": "All calls have index 0.",
  "no-index": "Calls have no index.",
  "same-id": "All calls of an answer have one id.",
  "restart-ids": "Ids count anew in each answer: `tool:0`, `tool:1`.",
  "no-ids": "Calls have no id.",
  pieces: "Arguments, name and id come in this order, the name in two pieces.",
  repeated: "Each part repeats id and name.",
  objects: "Arguments are an object instead of a text.",
  empty: "Arguments are an empty text.",
  unoffered: "Tools are called although they are not offered.",
  cut: "The answer ends by `length` within the arguments of its last call.",
  state:
    "Encrypted reasoning stands beside the calls; a next request that does not bring it back is refused.",
} as const;

export type CallManner = keyof typeof CALL_MANNERS;

/** The manners named in the value of a `calls` directive; unknown ones are left out. */
export function mannersOf(value: string): ReadonlySet<CallManner> {
  const words = value.split(",").map((word) => word.trim());
  return new Set(words.filter((word): word is CallManner => Object.hasOwn(CALL_MANNERS, word)));
}
