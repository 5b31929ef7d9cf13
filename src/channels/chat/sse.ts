import { SECOND } from "../../core/time";
import { errorData } from "../../errors/appError";
import { log } from "../../log/log";
import { KEEP_ALIVE } from "./events";

/** Longest silence on an open stream before a comment is sent. */
const SILENCE_MAX_MS = 15 * SECOND;

/**
 * Answers with server-sent events that `say` produces. The work goes on when the client leaves: the
 * platform runs an action to the end of its body, and what is sent to nobody is dropped.
 */
export function eventStream(
  say: (send: (text: string) => void) => Promise<void>,
  headers: Readonly<Record<string, string>> = {},
): Response {
  const encoder = new TextEncoder();
  let send: (text: string) => void = () => undefined;
  let close = (): void => undefined;
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      let open = true;
      send = (text) => {
        if (open) controller.enqueue(encoder.encode(text));
      };
      close = () => {
        if (open) controller.close();
        open = false;
      };
    },
    cancel() {
      // The reader is gone; there is nothing left to close or to send to.
      send = () => undefined;
      close = () => undefined;
    },
  });
  void run(say, {
    send: (text) => {
      send(text);
    },
    close: () => {
      close();
    },
  });
  return new Response(body, {
    status: 200,
    headers: {
      "content-type": "text/event-stream",
      // A proxy that compresses the stream would hold back what it has not filled a block with.
      "cache-control": "no-store, no-transform",
      "x-accel-buffering": "no",
      ...headers,
    },
  });
}

async function run(
  say: (send: (text: string) => void) => Promise<void>,
  out: { readonly send: (text: string) => void; readonly close: () => void },
): Promise<void> {
  let sentAtMs = Date.now();
  const timer = setInterval(() => {
    if (Date.now() - sentAtMs < SILENCE_MAX_MS) return;
    sentAtMs = Date.now();
    out.send(KEEP_ALIVE);
  }, SECOND);
  try {
    await say((text) => {
      sentAtMs = Date.now();
      out.send(text);
    });
  } catch (error) {
    // The status is long sent; a stream that ends without its terminal event is resumed.
    log.event("event_stream_failed", { code: errorData(error).code });
  } finally {
    clearInterval(timer);
    out.close();
  }
}
