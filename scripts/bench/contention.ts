import type { Backend } from "./engine/backend";

/** What conflicted in a simulation and where, one line per function that had any. */
export function conflictLines(backend: Backend): string[] {
  return [...backend.stats.values()]
    .filter(({ conflicts }) => conflicts > 0)
    .map(({ attempts, conflicts, hot, label, operations, terminal }) => {
      const where = [...hot]
        .sort(([, a], [, b]) => b - a)
        .map(([index, times]) => `${index} ${times}`)
        .join(", ");
      const perOperation = (attempts / operations).toFixed(3);
      return `  ${label}: ${operations} operations, ${perOperation} attempts each, ${conflicts} conflicts (${where}), ${terminal} given up`;
    });
}
