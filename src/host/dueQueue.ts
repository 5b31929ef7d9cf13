import type { NewJob } from "./invocation";

/** Jobs by due time: a binary heap, as a million may wait. */
export class DueQueue {
  readonly #jobs: NewJob[] = [];

  peek(): NewJob | undefined {
    return this.#jobs[0];
  }

  push(job: NewJob): void {
    const jobs = this.#jobs;
    let at = jobs.push(job) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (dueAt(jobs, above) <= job.dueMs) break;
      this.#swap(at, above);
      at = above;
    }
  }

  pop(): NewJob | undefined {
    const jobs = this.#jobs;
    const first = jobs[0];
    const last = jobs.pop();
    if (last === undefined || jobs.length === 0) return first;
    jobs[0] = last;
    for (let at = 0; ;) {
      const left = 2 * at + 1;
      const lower = dueAt(jobs, left + 1) < dueAt(jobs, left) ? left + 1 : left;
      if (dueAt(jobs, lower) >= last.dueMs) return first;
      this.#swap(at, lower);
      at = lower;
    }
  }

  #swap(a: number, b: number): void {
    const [one, other] = [this.#jobs[a], this.#jobs[b]];
    if (one === undefined || other === undefined) return;
    this.#jobs[a] = other;
    this.#jobs[b] = one;
  }
}

const dueAt = (jobs: readonly NewJob[], at: number) => jobs[at]?.dueMs ?? Infinity;
