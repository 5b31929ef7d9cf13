import type { Schedule } from "../../../src/host/cronTime";
import type { Json } from "../../../src/host/json";
import type { Component, RegisteredFunction } from "./app";

interface CronSpec {
  readonly name: string;
  readonly args: readonly Json[];
  readonly schedule: Schedule;
}
const isCrons = (crons: unknown): crons is { export(): string } =>
  typeof crons === "object" && crons !== null && "export" in crons;

/** The crons of an app by their names. */
export function cronsOf(
  app: Component,
): [string, { fn: RegisteredFunction; args: Json; schedule: Schedule }][] {
  const crons = app.module("crons")?.["default"];
  if (!isCrons(crons)) throw new Error("The app has no crons.");
  const specs = JSON.parse(crons.export()) as Record<string, CronSpec>;
  return Object.entries(specs).map(([name, { args, schedule, name: path }]) => [
    name,
    { fn: app.function(path), args: args[0] ?? {}, schedule },
  ]);
}
