import fc from "fast-check";
import { expect, test } from "vitest";
import { DueQueue } from "./dueQueue";

test("jobs come out by due time, whatever the order they went in and out", () => {
  fc.assert(
    fc.property(fc.array(fc.option(fc.nat(1_000)), { maxLength: 200 }), (steps) => {
      const queue = new DueQueue();
      const model: number[] = [];
      for (const [id, dueMs] of steps.entries())
        if (dueMs === null) {
          model.sort((a, b) => a - b);
          expect(queue.pop()?.dueMs).toBe(model.shift());
        } else {
          queue.push({ id: String(id), dueMs });
          model.push(dueMs);
        }
      model.sort((a, b) => a - b);
      expect(queue.peek()?.dueMs).toBe(model[0]);
      for (const dueMs of model) expect(queue.pop()?.dueMs).toBe(dueMs);
      expect(queue.pop()).toBeUndefined();
    }),
  );
});
