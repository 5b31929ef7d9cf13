/** Where chat is served, and whose tokens it takes. */
export interface Site {
  readonly siteUrl: string;
  readonly token: (user: string) => Promise<string>;
}

export interface Frame {
  readonly id: number | null;
  readonly event: {
    readonly type: string;
    readonly content?: string;
    readonly code?: string;
    readonly [field: string]: unknown;
  };
}

const TERMINAL = ["done", "error", "aborted"];

/** Frames of a text of server-sent events; a last one that is not whole is left out. */
export function parseFrames(text: string): Frame[] {
  return text
    .split("\n\n")
    .slice(0, -1)
    .map((block) => block.split("\n"))
    .filter((lines) => lines.some((line) => !line.startsWith(":")))
    .map((lines) => {
      const id = lines.find((line) => line.startsWith("id: "))?.slice(4);
      const data = lines.find((line) => line.startsWith("data: "))?.slice(6) ?? "null";
      return {
        id: id === undefined ? null : Number(id),
        event: JSON.parse(data) as Frame["event"],
      };
    });
}

export const terminals = (frames: readonly Frame[]): Frame[] =>
  frames.filter(({ event }) => TERMINAL.includes(event.type));

export const textOf = (frames: readonly Frame[]): string =>
  frames.map(({ event }) => (event.type === "content" ? event.content : "")).join("");

interface Post {
  readonly user?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** Posts a chat request; whatever the body is, it goes as it is. */
export async function postChat(site: Site, body: unknown, post: Post = {}): Promise<Response> {
  return await fetch(`${site.siteUrl}/api/chat`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      authorization: `Bearer ${await site.token(post.user ?? "alice")}`,
      ...post.headers,
    },
    body: typeof body === "string" ? body : JSON.stringify(body),
    ...(post.signal === undefined ? {} : { signal: post.signal }),
  });
}

/** One whole turn: the frames the client saw. */
export async function chat(site: Site, content: string, more: object = {}): Promise<Frame[]> {
  const response = await postChat(site, { message: { content }, ...more });
  if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`);
  return parseFrames(await response.text());
}

/** What the stream's first frame names. */
export function startOf(frames: readonly Frame[]): {
  readonly threadId: string;
  readonly messageId: string;
  readonly streamId: string;
} {
  const event: Readonly<Record<string, unknown>> = frames[0]?.event ?? {};
  const { threadId, messageId, streamId } = event;
  return { threadId: String(threadId), messageId: String(messageId), streamId: String(streamId) };
}

/** Reads a stream again behind an id. */
export async function resume(
  site: Site,
  streamId: string,
  { lastEventId, user = "alice" }: { readonly lastEventId?: number; readonly user?: string } = {},
): Promise<Response> {
  return await fetch(`${site.siteUrl}/api/chat/stream?streamId=${streamId}`, {
    headers: {
      authorization: `Bearer ${await site.token(user)}`,
      ...(lastEventId === undefined ? {} : { "last-event-id": String(lastEventId) }),
    },
  });
}

/** Reads a stream by hand: text so far, more of it, and the way out. */
export class Reader {
  text = "";
  private readonly reader: ReadableStreamDefaultReader<Uint8Array>;
  private readonly decoder = new TextDecoder();

  constructor(response: Response) {
    if (response.body === null) throw new Error(`no stream: ${response.status}`);
    this.reader = response.body.getReader();
  }

  get frames(): Frame[] {
    return parseFrames(this.text);
  }

  async more(): Promise<boolean> {
    const { done, value } = await this.reader.read();
    if (!done) this.text += this.decoder.decode(value, { stream: true });
    return !done;
  }

  async until(isIt: (frames: readonly Frame[]) => boolean): Promise<readonly Frame[]> {
    while (!isIt(this.frames)) if (!(await this.more())) throw new Error(`ended: ${this.text}`);
    return this.frames;
  }

  async end(): Promise<readonly Frame[]> {
    while (await this.more());
    return this.frames;
  }

  async leave(): Promise<void> {
    await this.reader.cancel();
  }
}
