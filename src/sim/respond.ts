import type { ServerResponse } from "node:http";
import { once } from "node:events";
import { setImmediate as nextTick, setTimeout as sleep } from "node:timers/promises";
import type { Fault } from "./faults";
import type { Answer, Step } from "./provider";

/** A frame that no JSON parser accepts, as a provider's proxy leaves it when it dies in the middle. */
const BROKEN_FRAME = 'data: {"id":"gen-broken","choices":[{"index":0,"delta":{"cont\n\n';
const NOTHING = new Uint8Array();

interface Wire {
  readonly response: ServerResponse;
  readonly fault: Fault;
  readonly signal: AbortSignal;
}

/** Writes the answer as the fault lets it; resolves when the answer is over, however it ended. */
export async function respond(
  response: ServerResponse,
  answer: Answer,
  options: { readonly fault: Fault | null; readonly signal: AbortSignal },
): Promise<void> {
  const wire: Wire = { response, fault: options.fault ?? {}, signal: options.signal };
  try {
    if (answer.body.kind === "stream") await sendStream(wire, answer, answer.body);
    else await sendWhole(wire, answer);
  } catch (error) {
    // A client that went away ends the pauses and writes; that is not a fault of the simulator.
    if (!options.signal.aborted) throw error;
  }
}

async function sendWhole(wire: Wire, answer: Answer): Promise<void> {
  const { response, fault } = wire;
  const whole = wholeBytes(answer);
  const bytes = fault.malformedFrame === true ? whole.subarray(0, whole.length >> 1) : whole;
  response.writeHead(answer.status, {
    ...(answer.body.kind === "json" ? { "content-type": "application/json; charset=utf-8" } : {}),
    ...(bytes.length > 0 ? { "content-length": String(bytes.length) } : {}),
    ...answer.headers,
  });
  const budget = new Budget(wire);
  if (await budget.write(bytes)) response.end();
}

function wholeBytes(answer: Answer): Uint8Array {
  switch (answer.body.kind) {
    case "json":
      return Buffer.from(JSON.stringify(answer.body.value));
    case "text":
      return Buffer.from(answer.body.text);
    case "bytes":
      return answer.body.bytes;
    case "stream":
      return NOTHING;
  }
}

async function sendStream(
  wire: Wire,
  answer: Answer,
  body: { readonly steps: Iterable<Step>; readonly splitBytes?: number },
): Promise<void> {
  const { response, fault, signal } = wire;
  response.writeHead(answer.status, answer.headers);
  response.flushHeaders();
  const budget = new Budget(wire);
  let writes = 0;
  for (const step of body.steps) {
    switch (step.kind) {
      case "write":
        writes += 1;
        // After the first frames, so that a client has already begun to show text.
        if (fault.malformedFrame === true && writes === BROKEN_FRAME_AFTER)
          if (!(await budget.write(Buffer.from(BROKEN_FRAME)))) return;
        for (const part of parts(Buffer.from(step.text), body.splitBytes)) {
          if (!(await budget.write(part))) return;
          // Lets the bytes leave before the next ones, so that splits reach the client as splits.
          await nextTick(undefined, { signal });
        }
        break;
      case "pause":
        await sleep(step.pauseMs, undefined, { signal });
        break;
      case "hang":
        await never(signal);
        return;
      case "cut":
        destroy(response);
        return;
    }
  }
  response.end();
}

const BROKEN_FRAME_AFTER = 4;

/** Where a frame is torn: every `splitBytes`, else inside its first multi-byte character. */
function* parts(bytes: Buffer, splitBytes: number | undefined): Iterable<Uint8Array> {
  if (splitBytes !== undefined) {
    for (let at = 0; at < bytes.length; at += splitBytes) yield bytes.subarray(at, at + splitBytes);
    return;
  }
  const inside = bytes.findIndex((byte) => byte >= 0x80) + 1;
  if (inside > 0) yield bytes.subarray(0, inside);
  yield bytes.subarray(inside);
}

/** Counts body bytes and ends the connection, or its progress, where the fault says. */
class Budget {
  private sent = 0;
  private readonly wire: Wire;

  constructor(wire: Wire) {
    this.wire = wire;
  }

  /** False when the answer ended here. */
  async write(bytes: Uint8Array): Promise<boolean> {
    const { response, fault, signal } = this.wire;
    const limit = Math.min(fault.cutAfterBytes ?? Infinity, fault.hangAfterBytes ?? Infinity);
    const allowed = bytes.subarray(0, Math.max(0, limit - this.sent));
    this.sent += allowed.length;
    if (allowed.length > 0) await handOver(this.wire, allowed);
    if (this.sent < limit) return true;
    response.flushHeaders();
    if (limit === fault.cutAfterBytes) destroy(response);
    else await never(signal);
    return false;
  }
}

/**
 * Writes and waits until the socket has the bytes. Node keeps a chunk to itself for a moment, in the
 * response from Node 24 on, and a socket that is closed meanwhile does not know of it.
 */
async function handOver({ response, signal }: Wire, bytes: Uint8Array): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = (): void => {
      signal.removeEventListener("abort", done);
      resolve();
    };
    // Where the client left first, Node may never say that the write is over.
    signal.addEventListener("abort", done);
    response.write(bytes, done);
  });
  signal.throwIfAborted();
}

/** The bytes that the socket has are given to the kernel before the connection goes. */
function destroy(response: ServerResponse): void {
  const { socket } = response;
  if (socket === null) return;
  socket.destroySoon();
}

/** Waits until the client or the server gives up. */
export async function never(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, "abort").catch(() => undefined);
}
