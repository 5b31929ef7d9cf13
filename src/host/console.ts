import { inspect } from "node:util";
import type { Invocation } from "./invocation";

interface Sink {
  current(): Invocation | undefined;
  print(line: string): void;
}

const LEVELS = {
  log: "LOG",
  debug: "DEBUG",
  info: "INFO",
  warn: "WARN",
  error: "ERROR",
  trace: "TRACE",
} as const;

/** A console whose lines belong to the run that wrote them; the host prints them as they come. */
export function consoleFor(sink: Sink): Record<string, (...args: unknown[]) => void> {
  const methods: Record<string, (...args: unknown[]) => void> = {};
  for (const [method, level] of Object.entries(LEVELS))
    methods[method] = (...args) => {
      sink.current()?.log(level, args.map(quoted).join(" "));
      sink.print(args.map(plain).join(" "));
    };
  const started = new Map<string, number>();
  methods["time"] = (label = "default") => {
    started.set(String(label), Date.now());
  };
  methods["timeLog"] = (label = "default", ...rest) => {
    const sinceMs = Date.now() - (started.get(String(label)) ?? Date.now());
    methods["info"]?.(`${String(label)}: ${sinceMs}ms`, ...rest);
  };
  methods["timeEnd"] = (label) => {
    methods["timeLog"]?.(label);
    started.delete(String(label));
  };
  return methods;
}

const quoted = (value: unknown) => inspect(value, { depth: 4, breakLength: Infinity });
const plain = (value: unknown) => (typeof value === "string" ? value : quoted(value));
