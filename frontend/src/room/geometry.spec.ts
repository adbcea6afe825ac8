import { describe, expect, it } from "vitest";
import {
  ZOOM_STEP,
  arrow,
  clampToPicture,
  progressOf,
  distance,
  extendStroke,
  fit,
  hitTest,
  isInside,
  keepInSight,
  keyStep,
  magnified,
  panBy,
  pinch,
  toCanvas,
  toPicture,
  wheelAction,
  zoomAt,
} from "./geometry.ts";
import type { HitTarget } from "./geometry.ts";

const picture = { width: 256, height: 128 };

describe("the view", () => {
  it("is magnified around a place", () => {
    const view = { scale: 2.5, x: 17, y: -4 };
    const place = toPicture(view, [40, 60]);
    const larger = magnified(view, [40, 60], [100, 20], 2);
    expect(toCanvas(larger, place)).toEqual([100, 20]);
    expect(larger.scale).toBe(5);
  });

  it("takes picture to canvas and back", () => {
    const view = { scale: 2.5, x: 17, y: -4 };
    for (const point of [
      [0, 0],
      [255, 127],
      [31.4, 96.2],
    ] as const) {
      const [x, y] = toPicture(view, toCanvas(view, point));
      expect(x).toBeCloseTo(point[0], 9);
      expect(y).toBeCloseTo(point[1], 9);
    }
  });

  it("puts the origin at the centre of the top left pixel", () => {
    expect(toCanvas({ scale: 4, x: 10, y: 20 }, [0, 0])).toEqual([12, 22]);
    expect(toPicture({ scale: 4, x: 10, y: 20 }, [10, 20])).toEqual([-0.5, -0.5]);
  });

  it("fits the whole picture, centred, inside the margin", () => {
    const view = fit(picture, { width: 800, height: 600 }, 20);
    expect(view.scale).toBeCloseTo(760 / 256);
    expect(view.x).toBe(20);
    expect(view.y + (picture.height * view.scale) / 2).toBeCloseTo(300, 0);
  });

  it("does not blow small pictures up without end, and survives a canvas of no size", () => {
    expect(fit({ width: 8, height: 8 }, { width: 800, height: 600 }, 20).scale).toBe(4);
    expect(fit(picture, { width: 0, height: 0 }, 20).scale).toBeGreaterThan(0);
  });

  it("nudges by a pixel of the screen and never by less than one of the picture", () => {
    expect(keyStep({ scale: 3, x: 0, y: 0 })).toBe(1);
    expect(keyStep({ scale: 0.1, x: 0, y: 0 })).toBe(10);
  });
});

describe("the picture's edge", () => {
  it("clamps to pixel centres", () => {
    expect(clampToPicture(picture, [-9, 500])).toEqual([0, 127]);
    expect(clampToPicture(picture, [12.5, 3])).toEqual([12.5, 3]);
  });

  it("counts the outer half pixels as inside", () => {
    expect(isInside(picture, [-0.5, 127.5])).toBe(true);
    expect(isInside(picture, [-0.6, 0])).toBe(false);
  });
});

describe("taking hold", () => {
  const places: readonly HitTarget[] = [
    { id: "a", end: "target", at: [100, 100] },
    { id: "b", end: "target", at: [120, 100] },
    { id: "a", end: "handle", at: [100, 100] },
  ];

  it("takes the nearest within reach", () => {
    expect(hitTest(places, [117, 101], 14)).toMatchObject({ id: "b" });
    expect(hitTest(places, [140, 120], 14)).toBeNull();
  });

  it("takes the one on top where two lie on each other", () => {
    expect(hitTest(places, [101, 100], 14)).toMatchObject({ id: "a", end: "handle" });
  });

  it("does not let an earlier, farther one win over a nearer one", () => {
    expect(hitTest(places, [111, 100], 14)).toMatchObject({ id: "b" });
  });
});

describe("arrows", () => {
  it("leave the gaps free and point at the target", () => {
    const shape = arrow([0, 0], [100, 0], 10, 12, 8);
    expect(shape?.from).toEqual([10, 0]);
    expect(shape?.to).toEqual([88, 0]);
    expect(shape?.head.map(([x]) => x)).toEqual([80, 80]);
  });

  it("vanish where handle and target touch", () => {
    expect(arrow([0, 0], [15, 0], 10, 12, 8)).toBeNull();
    expect(arrow([3, 3], [3, 3], 0, 0, 8)).toBeNull();
  });
});

it("says how much of the way is done", () => {
  expect(progressOf([0, 0], [30, 0], [40, 0])).toBe(0.75);
  expect(progressOf([0, 0], [-10, 0], [40, 0])).toBe(0);
  expect(progressOf([5, 5], [5, 5], [5, 5])).toBe(1);
});

it("keeps strokes from growing where the pointer stands still", () => {
  const stroke = [[0, 0]] as const;
  expect(extendStroke(stroke, [0.2, 0], 1)).toBe(stroke);
  expect(extendStroke(stroke, [3, 4], 1)).toHaveLength(2);
  expect(distance([0, 0], [3, 4])).toBe(5);
});

describe("looking closer", () => {
  const canvas = { width: 400, height: 300 };
  const size = { width: 200, height: 100 };
  const view = { scale: 1, x: 100, y: 100 };

  it("keeps what is under the pointer there", () => {
    const at = [150, 130] as const;
    const zoomed = zoomAt(view, at, 3, size, canvas);
    expect(zoomed.scale).toBe(3);
    expect(toCanvas(zoomed, toPicture(view, at))[0]).toBeCloseTo(at[0]);
    expect(toCanvas(zoomed, toPicture(view, at))[1]).toBeCloseTo(at[1]);
  });

  it("ends at both ends", () => {
    expect(zoomAt(view, [0, 0], 1e6, size, canvas).scale).toBe(32);
    expect(zoomAt(view, [0, 0], 1e-6, size, canvas).scale).toBe(0.02);
  });

  it("loses the picture nowhere", () => {
    const far = panBy(view, [5000, -5000], size, canvas);
    expect(far).toEqual({ scale: 1, x: 400 - 64, y: 64 - 100 });
    expect(keepInSight(fit(size, canvas, 14), size, canvas)).toEqual(fit(size, canvas, 14));
  });

  it("follows two fingers: apart enlarges, along moves", () => {
    const apart = pinch(
      view,
      [
        [150, 130],
        [170, 130],
      ],
      [
        [140, 130],
        [180, 130],
      ],
      size,
      canvas,
    );
    expect(apart.scale).toBeCloseTo(2);
    const along = pinch(
      view,
      [
        [150, 130],
        [170, 130],
      ],
      [
        [160, 140],
        [180, 140],
      ],
      size,
      canvas,
    );
    expect(along).toEqual({ scale: 1, x: 110, y: 110 });
  });

  it("tells wheels from touchpads", () => {
    const turn = { ctrlKey: false, metaKey: false, shiftKey: false, deltaX: 0, deltaY: 0, deltaMode: 0 };
    expect(wheelAction({ ...turn, deltaY: -100 })).toMatchObject({ kind: "zoom" });
    expect(wheelAction({ ...turn, deltaY: -3, deltaMode: 1 })).toMatchObject({ kind: "zoom" });
    // One notch is one step, whatever the system scrolls for it; and back again.
    for (const notch of [{ deltaY: -53 }, { deltaY: -100 }, { deltaY: -120 }, { deltaY: -3, deltaMode: 1 }]) {
      expect(wheelAction({ ...turn, ...notch })).toEqual({ kind: "zoom", factor: ZOOM_STEP });
      expect(wheelAction({ ...turn, ...notch, deltaY: -notch.deltaY })).toEqual({
        kind: "zoom",
        factor: 1 / ZOOM_STEP,
      });
    }
    expect(wheelAction({ ...turn, deltaY: -100, ctrlKey: true })).toEqual({ kind: "zoom", factor: ZOOM_STEP });
    expect(wheelAction({ ...turn, deltaY: -240 })).toEqual({ kind: "zoom", factor: ZOOM_STEP ** 2 });
    expect(wheelAction({ ...turn, deltaY: 4 })).toEqual({ kind: "pan", by: [-0, -4] });
    expect(wheelAction({ ...turn, deltaX: 3, deltaY: 4 })).toEqual({ kind: "pan", by: [-3, -4] });
    expect(wheelAction({ ...turn, deltaY: -2, ctrlKey: true })).toMatchObject({ kind: "zoom" });
    expect(wheelAction({ ...turn, deltaY: 100, shiftKey: true })).toEqual({ kind: "pan", by: [-100, 0] });
  });
});
