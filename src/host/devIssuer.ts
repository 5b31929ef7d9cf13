import { link, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { SignJWT, calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK } from "jose";
import type { JWK } from "jose";

/** Whom tokens name as their issuer and audience; fixed, so that they outlive a change of ports. */
export interface IssuerNames {
  readonly issuer: string;
  readonly audience: string;
}

export interface DevIssuer {
  /** The public key as a `data:` URL, so that nobody has to serve it. */
  readonly jwksUrl: string;
  /** A token for a user; its subject is the name given. */
  token(user: string): Promise<string>;
}

const ALGORITHM = "RS256";
const FILE = "issuer-key.json";
const TOKEN_LIFETIME = "30 days";

/**
 * Issues tokens for development. The key pair is made at the first use and lies in a file that only
 * the owner can read, so a token can be made whether or not the server runs.
 */
export async function openIssuer(dataDir: string, names: IssuerNames): Promise<DevIssuer> {
  const jwk = await keepKey(dataDir);
  const { kty, n, e, kid = "" } = jwk;
  const keys = [{ kty, n, e, kid, alg: ALGORITHM, use: "sig" }];
  const encoded = Buffer.from(JSON.stringify({ keys })).toString("base64");
  return {
    jwksUrl: `data:application/json;charset=utf-8;base64,${encoded}`,
    token: async (user) =>
      new SignJWT({ name: user })
        .setProtectedHeader({ alg: ALGORITHM, kid, typ: "JWT" })
        .setIssuer(names.issuer)
        .setAudience(names.audience)
        .setSubject(user)
        .setIssuedAt()
        .setExpirationTime(TOKEN_LIFETIME)
        .sign(await importJWK(jwk, ALGORITHM)),
  };
}

async function keepKey(dataDir: string): Promise<JWK> {
  const file = path.join(dataDir, FILE);
  const known = await readKey(file);
  if (known !== null) return known;
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const { privateKey } = await generateKeyPair(ALGORITHM, { extractable: true });
  const jwk = await exportJWK(privateKey);
  const made = { ...jwk, kid: await calculateJwkThumbprint(jwk) };
  // Whole or not at all, and never in place of a key that another process has just made.
  const draft = `${file}.${process.pid}.${made.kid}`;
  await writeFile(draft, JSON.stringify(made), { mode: 0o600 });
  try {
    await link(draft, file);
    return made;
  } catch (error) {
    const theirs = await readKey(file);
    if (theirs === null) throw error;
    return theirs;
  } finally {
    await rm(draft);
  }
}

async function readKey(file: string): Promise<JWK | null> {
  try {
    return JSON.parse(await readFile(file, "utf8")) as JWK;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}
