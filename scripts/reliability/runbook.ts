import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { RUNBOOK_FILE } from "../../src/slo/playbooks";

/** For tests: the runbook as sections, and its commands as they stand there. */
export interface Section {
  readonly heading: string;
  readonly text: string;
  /** What its `sh` blocks hold. */
  readonly blocks: readonly string[];
}

export const runbookText = (projectDir: string): string =>
  readFileSync(path.join(projectDir, RUNBOOK_FILE), "utf8");

/** Sections of the runbook in order. */
export function runbookSections(projectDir: string): readonly Section[] {
  return runbookText(projectDir)
    .split(/^## /m)
    .slice(1)
    .map((section) => {
      const [heading = ""] = section.split("\n");
      // Blocks of lists are indented as the list is.
      const blocks = [...section.matchAll(/^( *)```sh\n([\s\S]*?)^ *```$/gm)].map(
        ([, indent = "", block = ""]) => block.replaceAll(new RegExp(`^${indent}`, "gm"), ""),
      );
      return { heading, text: section, blocks };
    });
}

/** What the text itself names as something to type, outside of the blocks. */
export function inlineCommands({ text }: Pick<Section, "text">): readonly string[] {
  const prose = text.replaceAll(/^ *```[\s\S]*?^ *```$/gm, "");
  return [...prose.matchAll(/`([^`]+)`/g)]
    .map(([, code = ""]) => code.replaceAll(/\s+/g, " "))
    .filter((code) => /^(npx|npm|node|curl|git|bash|sh|export)\b/.test(code));
}

export interface RunbookHost {
  readonly projectDir: string;
  readonly cloudUrl: string;
  readonly siteUrl: string;
  readonly dataDir: string;
}

export interface RanBlocks {
  readonly code: number;
  readonly output: string;
}

/**
 * Runs all blocks of a section in one shell that stops at the first command that fails, with the
 * address and the directory of a local host in place of the usual ones. `prelude` goes before them.
 */
export async function runSection(
  { blocks }: Pick<Section, "blocks">,
  setup: Section,
  { host, prelude = "" }: { readonly host: RunbookHost; readonly prelude?: string },
): Promise<RanBlocks> {
  const [variables = ""] = setup.blocks;
  // On free ports, HTTP actions are not one above functions.
  const address = `export RELIABILITY_BASE_URL=${host.siteUrl}`;
  const script = ["set -euo pipefail", prelude, variables, address, ...blocks]
    .join("\n")
    .replaceAll("http://127.0.0.1:3210", host.cloudUrl)
    .replaceAll(".ballast/deployment.json", path.join(host.dataDir, "deployment.json"))
    .replaceAll(/^( *npm run -s host .*)$/gm, `$1 --data-dir ${host.dataDir}`)
    .replaceAll(
      /^( *npm run -s reliability:probe)$/gm,
      `$1 -- --slo-baseline ${path.join(host.dataDir, "untimed.json")}`,
    )
    // The scripts' own reports go where tests may write.
    .replaceAll(
      /^( *npm run -s reliability:\w+)(?: --)?/gm,
      `$1 -- --out ${path.join(host.dataDir, "report.json")}`,
    );
  const PATH = [path.dirname(process.execPath), "/usr/local/bin", "/usr/bin", "/bin"].join(":");
  try {
    const { stdout, stderr } = await promisify(execFile)("bash", ["-c", script], {
      cwd: host.projectDir,
      env: { PATH, HOME: path.join(host.dataDir, "home"), CI: "1" },
      maxBuffer: 16 * 1024 * 1024,
    });
    return { code: 0, output: tail(stdout + stderr) };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { code, output: tail(stdout + stderr) };
  }
}

const OUTPUT_LENGTH_MAX = 2_000;
const tail = (output: string): string => output.slice(-OUTPUT_LENGTH_MAX);
