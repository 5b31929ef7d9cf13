import type { KnobName, NumberKnob } from "./knobs";

interface RelationWarning {
  readonly name: KnobName;
  readonly problem: string;
  readonly used: string;
}

/** Rules between knobs that are each valid alone. Values are used as they stand. */
export function relationWarnings(
  number: (name: NumberKnob) => number,
  isSet: (name: KnobName) => boolean,
): RelationWarning[] {
  const warnings: RelationWarning[] = [];
  const warn = (name: KnobName, problem: string): void => {
    warnings.push({ name, problem, used: "as set" });
  };
  const perTool = (["WEB", "PROD", "GLOB"] as const)
    .map((tool) => number(`TOOL_JOB_RUNMAX_${tool}`))
    .reduce((sum, value) => sum + value, 0);
  const jobsMax = number("BULKHEAD_TOOL_JOB_MAX");
  if (perTool > jobsMax)
    warn(
      "BULKHEAD_TOOL_JOB_MAX",
      `is ${jobsMax}, but the tools' own limits (TOOL_JOB_RUNMAX_WEB, _PROD, _GLOB) add up to ` +
        `${perTool}: so many may run at once`,
    );
  for (const { less, more, because } of ORDERED)
    if (number(less) > number(more))
      warn(less, `is ${number(less)}, above ${more} (${number(more)}): ${because}`);
  for (const [one, other] of PAIRS)
    if (isSet(one) !== isSet(other)) {
      const [set, missing] = isSet(one) ? [one, other] : [other, one];
      warn(missing, `is not set, though ${set} is: one is of no use without the other`);
    }
  return warnings;
}

const ORDERED: readonly {
  readonly less: NumberKnob;
  readonly more: NumberKnob;
  readonly because: string;
}[] = [
  {
    less: "CHAT_STREAM_IDLE_TIMEOUT_MS",
    more: "CHAT_STREAM_TOTAL_TIMEOUT_MS",
    because: "silence is never noticed before the whole turn ends",
  },
  {
    less: "TOOL_JOB_POLL_MS",
    more: "TOOL_JOB_WAIT_MS",
    because: "a caller gives up before it looks",
  },
  {
    less: "WEBHOOK_JOB_RETRY_BASE_MS",
    more: "WEBHOOK_JOB_RETRY_CAP_MS",
    because: "delays never grow",
  },
  {
    less: "TOOL_JOB_LEASE_MS",
    more: "BULKHEAD_TOOL_JOB_LEASE_MS",
    because: "a live job outlives its worker's slot",
  },
];

const PAIRS: readonly (readonly [KnobName, KnobName])[] = [
  ["GMAIL_PUSH_AUDIENCE", "GMAIL_PUSH_SERVICE_ACCOUNT"],
  ["EBAY_CLIENT_ID", "EBAY_CLIENT_SECRET"],
  ["GMAIL_OAUTH_CLIENT_ID", "GMAIL_OAUTH_CLIENT_SECRET"],
  ["AUTH_ISSUER", "AUTH_JWKS_URL"],
];
