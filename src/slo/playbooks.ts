/** The sections of the runbook that a finding can send somebody to. */
export const RUNBOOK_FILE = "scripts/reliability/RUNBOOK.md";

/** Headings as the runbook has them; a test compares. */
export const PLAYBOOKS = {
  limits: "Playbook A: a rate limit refuses more than usual",
  circuit: "Playbook B: a circuit opens",
  bulkhead: "Playbook C: a bulkhead is saturated",
  replay: "Playbook D: replays surge",
  cache: "Playbook E: the tool cache serves stale answers",
  queue: "Playbook F: the tool queue backs up",
  webhooks: "Other signal: webhooks are not processed",
  configuration: "Other signal: a setting is refused",
  alerts: "Other signal: alerts are not delivered",
  streams: "Other signal: a stream lost its worker",
  objective: "Other signal: an objective is missed",
  truncated: "Other signal: a figure was cut short",
} as const;

export type PlaybookId = keyof typeof PLAYBOOKS;

/** Where a playbook begins, as a link within the repository. */
export function playbookLink(id: PlaybookId): string {
  const anchor = PLAYBOOKS[id]
    .toLowerCase()
    .replaceAll(/[^\w -]/g, "")
    .replaceAll(" ", "-");
  return `${RUNBOOK_FILE}#${anchor}`;
}
