// Wire format: openrouter.ai/docs, "Tool & Function Calling" and "Reasoning Tokens"; the manners are
// those of other providers behind it, as their users report them.
import type { CallManner } from "./directives";
import type { Turn } from "./model";

const ARGUMENT_FRAMES = 4;
/** How much of the last call's arguments a cut answer still has. */
const CUT_SHARE = 0.5;

interface FullCall {
  readonly index: number;
  readonly id: string;
  readonly name: string;
  readonly argumentsText: string;
}

/** The calls of one answer as its whole form gives them. */
export function wholeCalls(turn: Turn): object[] {
  return turn.calls.map((_, index) => {
    const { argumentsText, id, name } = fullCall(turn, index);
    return { index, id, type: "function", function: { name, arguments: argumentsText } };
  });
}

/** The deltas that stream the calls of one answer, in the manners that the prompt asks for. */
export function* callDeltas(turn: Turn): Iterable<object> {
  if (turn.calls.length > 0 && has(turn, "state"))
    yield { role: "assistant", content: "", reasoning_details: [stateOf(turn)] };
  for (const index of turn.calls.keys())
    for (const part of partsOf(turn, fullCall(turn, index)))
      yield { role: "assistant", content: null, tool_calls: [part] };
}

/**
 * Why a request is refused for the state that it does not bring back; null where all is well. The
 * state belongs to the message with the calls of its step.
 */
export function missingState(turn: Turn, answers: readonly object[]): string | null {
  if (!has(turn, "state")) return null;
  for (const [step, answer] of answers.entries()) {
    const details: unknown = "reasoning_details" in answer ? answer.reasoning_details : null;
    const wanted = JSON.stringify(stateData(turn, step));
    if (!JSON.stringify(details ?? null).includes(wanted))
      return "Function call is missing a thought_signature in functionCall parts.";
  }
  return null;
}

const has = (turn: Turn, manner: CallManner): boolean => turn.script.manners.has(manner);

function fullCall(turn: Turn, index: number): FullCall {
  const call = turn.calls[index];
  const argumentsText = has(turn, "empty") ? "" : (call?.argumentsText ?? "{}");
  const isCut = has(turn, "cut") && index === turn.calls.length - 1;
  const kept = isCut ? Math.floor(argumentsText.length * CUT_SHARE) : argumentsText.length;
  return {
    index,
    id: idOf(turn, index),
    name: call?.name ?? "",
    argumentsText: argumentsText.slice(0, kept),
  };
}

function idOf(turn: Turn, index: number): string {
  if (has(turn, "restart-ids")) return `tool:${index}`;
  return `call_${turn.seed.id(has(turn, "same-id") ? "call" : `call-${index}`, 24)}`;
}

/** What a model wants back with the results: nothing that anyone else can read. */
function stateOf(turn: Turn): object {
  return {
    type: "reasoning.encrypted",
    data: stateData(turn, turn.step),
    id: idOf(turn, 0),
    format: "google-gemini-v1",
    index: 0,
  };
}

const stateData = (turn: Turn, step: number): string =>
  Buffer.from(`state of step ${step}: ${turn.script.prose}`).toString("base64");

/** The parts of one call: name and id first and the arguments after them, unless asked otherwise. */
function* partsOf(turn: Turn, call: FullCall): Iterable<object> {
  const place = {
    ...(has(turn, "no-index") ? {} : { index: has(turn, "same-index") ? 0 : call.index }),
    type: "function",
  };
  const id = has(turn, "no-ids") ? {} : { id: call.id };
  const name = { name: call.name };
  if (has(turn, "objects")) {
    const args: unknown = safeObject(call.argumentsText);
    yield { ...place, ...id, function: { ...name, arguments: args } };
    return;
  }
  const texts = piecesOf(call.argumentsText);
  if (has(turn, "pieces")) {
    for (const text of texts) yield { ...place, function: { arguments: text } };
    const half = call.name.length >> 1;
    yield { ...place, function: { name: call.name.slice(0, half) } };
    yield { ...place, function: { name: call.name.slice(half) } };
    yield { ...place, ...id };
    return;
  }
  const isWhole = has(turn, "same-index") || has(turn, "repeated");
  if (!isWhole) yield { ...place, ...id, function: { ...name, arguments: "" } };
  // Where calls share an index, each comes whole: nothing else tells their arguments apart.
  const parts = has(turn, "same-index") ? [call.argumentsText] : texts;
  for (const text of parts)
    yield isWhole
      ? { ...place, ...id, function: { ...name, arguments: text } }
      : { ...place, function: { arguments: text } };
}

/** A text in a few pieces, none of which ends within a character. */
function piecesOf(source: string): string[] {
  const characters = Array.from(source);
  const size = Math.max(1, Math.ceil(characters.length / ARGUMENT_FRAMES));
  const pieces: string[] = [];
  for (let at = 0; at < characters.length; at += size)
    pieces.push(characters.slice(at, at + size).join(""));
  return pieces;
}

function safeObject(source: string): unknown {
  try {
    return JSON.parse(source) as unknown;
  } catch {
    return source;
  }
}
