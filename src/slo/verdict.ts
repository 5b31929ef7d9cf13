/**
 * What a snapshot means: whether anything is wrong, how badly, and what to do first. Pure, and the
 * same for the live snapshot and for every script that reads one.
 */
import { playbookLink } from "./playbooks";
import { type Severity, VERDICT_LIMITS, type VerdictInput, type VerdictLimits } from "./reading";
import { type Problem, RULES } from "./rules";

export type Verdict = "ok" | "degraded" | "critical";

interface Cause {
  /** Stable, such as `circuit_open:serper_search`. */
  readonly id: string;
  readonly severity: Severity;
  /** Section of the snapshot to look at. */
  readonly section: string;
  /** One sentence with the figures. */
  readonly detail: string;
  /** Where the runbook begins with it. */
  readonly runbook: string;
}

interface NextAction {
  readonly what: string;
  /** Shows more, and changes nothing; null where there is nothing to do. */
  readonly command: string | null;
  readonly playbook: string | null;
}

export interface VerdictResult {
  readonly verdict: Verdict;
  /** The causes' sentences, worst first. */
  readonly reasons: readonly string[];
  readonly causes: readonly Cause[];
  readonly nextAction: NextAction;
}

/**
 * Judges a reading. More trouble never makes a verdict better, and the order of a list changes
 * nothing.
 */
export function decideVerdict(
  input: VerdictInput,
  limits: VerdictLimits = VERDICT_LIMITS,
): VerdictResult {
  // Rules stand in the order of urgency, which a stable sort keeps within a severity.
  const problems = RULES.flatMap((rule) => [...rule(input, limits)].sort(byId)).sort(
    (a, b) => RANK[b.severity] - RANK[a.severity],
  );
  const worst = problems[0]?.severity ?? "note";
  return {
    verdict: worst === "note" ? "ok" : worst,
    reasons: problems.map(({ detail }) => detail),
    causes: problems.map(({ id, severity, section, detail, playbook }) => ({
      id,
      severity,
      section,
      detail,
      runbook: playbookLink(playbook),
    })),
    nextAction: nextActionFor(problems[0]),
  };
}

const byId = (a: Problem, b: Problem): number =>
  a.id === b.id ? compare(a.detail, b.detail) : compare(a.id, b.id);
const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

const RANK: Readonly<Record<Severity, number>> = { note: 0, degraded: 1, critical: 2 };

function nextActionFor(problem: Problem | undefined): NextAction {
  if (problem === undefined) return { what: "Nothing to do.", command: null, playbook: null };
  const { what, command, playbook } = problem;
  return { what, command, playbook: playbookLink(playbook) };
}
