import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { parseJson, record, text } from "./json";

/** A running deployment, and the variables it was started with as far as they can be known. */
export interface Deployment {
  readonly siteUrl: string;
  /** Null when it uses real providers only. */
  readonly simUrl: string | null;
  /** Null when the variable is set nowhere. */
  setting(name: string): string | null;
}

/** Something the user can put right; its message is the one line to print. */
export class UserError extends Error {}

/**
 * Reads what the server left in its data directory. Variables are looked up where the server
 * looks: environment, `.env.local`, then the development secrets. Throws `UserError`.
 */
export function findDeployment(options: {
  readonly dataDir: string;
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}): Deployment {
  const { dataDir, cwd, env } = options;
  const file = join(dataDir, "deployment.json");
  if (!existsSync(file))
    throw new UserError(`no deployment is running on ${dataDir}: start one with "npm start"`);
  const found = record(parseJson(readFileSync(file)));
  const siteUrl = text(found["siteUrl"]);
  if (siteUrl === "") throw new UserError(`${file} names no siteUrl: start again with "npm start"`);
  const local = envFile(join(cwd, ".env.local"));
  const secrets = secretsFile(join(dataDir, "secrets.json"));
  return {
    siteUrl: siteUrl.replace(/\/$/, ""),
    simUrl: text(found["simUrl"]) || null,
    // An empty value counts as unset, as it does for the server.
    setting: (name) =>
      [env[name], local[name], text(secrets[name])].find((value) => Boolean(value)) ?? null,
  };
}

function envFile(file: string): Readonly<Record<string, string | undefined>> {
  return existsSync(file) ? parseEnv(readFileSync(file, "utf8")) : {};
}

function secretsFile(file: string): Readonly<Record<string, unknown>> {
  return existsSync(file) ? record(parseJson(readFileSync(file))) : {};
}
