/**
 * QR codes (ISO/IEC 18004) of short texts: byte mode, error correction level M, versions 1 to 13. Pure; gives the square
 * of modules, true for dark, without its quiet zone.
 */

/** By version, from 1: codewords of error correction in each block, and the number of blocks, at level M. */
const BLOCKS: readonly (readonly [correction: number, blocks: number])[] = [
  [10, 1],
  [16, 1],
  [26, 1],
  [18, 2],
  [24, 2],
  [16, 4],
  [18, 4],
  [22, 4],
  [22, 5],
  [26, 5],
  [30, 5],
  [22, 8],
  [22, 9],
];

/** Level M as format information has it. */
const LEVEL = 0;

type Modules = boolean[][];

/** Throws `RangeError` where the text is longer than version 13 can hold: about 330 bytes. */
export function qrCode(text: string): readonly (readonly boolean[])[] {
  const bytes = new TextEncoder().encode(text);
  const version = BLOCKS.findIndex((_, index) => bytes.length <= capacity(index + 1)) + 1;
  if (version === 0)
    throw new RangeError(`a QR code of ${bytes.length} bytes is more than version ${BLOCKS.length} holds`);
  const codewords = interleave(version, dataCodewords(version, bytes));
  const drawn = Array.from({ length: 8 }, (_, mask) => draw(version, codewords, mask));
  return drawn.reduce((best, next) => (penalty(next) < penalty(best) ? next : best));
}

function sizeOf(version: number): number {
  return version * 4 + 17;
}

/** Bytes of text that a version holds. */
function capacity(version: number): number {
  return dataLength(version) - (version < 10 ? 2 : 3);
}

/** Codewords of data that a version holds. */
function dataLength(version: number): number {
  const [correction, blocks] = BLOCKS[version - 1] ?? [0, 0];
  return Math.floor(rawModules(version) / 8) - correction * blocks;
}

/** Modules that are no function pattern. */
function rawModules(version: number): number {
  let modules = (16 * version + 128) * version + 64;
  if (version >= 2) {
    const lines = alignments(version).length;
    modules -= (25 * lines - 10) * lines - 55;
  }
  return version >= 7 ? modules - 36 : modules;
}

/** Rows and columns on which alignment patterns are centred. */
function alignments(version: number): readonly number[] {
  if (version === 1) return [];
  const lines = Math.floor(version / 7) + 2;
  const step = Math.floor((version * 8 + lines * 3 + 5) / (lines * 4 - 4)) * 2;
  return [6, ...Array.from({ length: lines - 1 }, (_, index) => sizeOf(version) - 7 - (lines - 2 - index) * step)];
}

function dataCodewords(version: number, bytes: Uint8Array): number[] {
  const bits: number[] = [];
  const put = (value: number, length: number) => {
    for (let bit = length - 1; bit >= 0; bit--) bits.push((value >>> bit) & 1);
  };
  put(0b0100, 4);
  put(bytes.length, version < 10 ? 8 : 16);
  for (const byte of bytes) put(byte, 8);
  const room = dataLength(version) * 8;
  put(0, Math.min(4, room - bits.length));
  put(0, (8 - (bits.length % 8)) % 8);
  for (let pad = 0xec; bits.length < room; pad ^= 0xec ^ 0x11) put(pad, 8);
  return Array.from({ length: bits.length / 8 }, (_, at) =>
    bits.slice(at * 8, at * 8 + 8).reduce((byte, bit) => (byte << 1) | bit, 0),
  );
}

/** Splits data into blocks, corrects each, and takes codewords from them by turns. */
function interleave(version: number, data: readonly number[]): number[] {
  const [correction, count] = BLOCKS[version - 1] ?? [0, 0];
  const short = Math.floor(data.length / count);
  const longer = data.length % count;
  const divisor = generator(correction);
  let at = 0;
  const blocks = Array.from({ length: count }, (_, index) => {
    const block = data.slice(at, (at += short + (index >= count - longer ? 1 : 0)));
    return { block, check: remainder(block, divisor) };
  });
  const codewords: number[] = [];
  for (let index = 0; index <= short; index++)
    for (const { block } of blocks) if (index < block.length) codewords.push(block[index] ?? 0);
  for (let index = 0; index < correction; index++) for (const { check } of blocks) codewords.push(check[index] ?? 0);
  return codewords;
}

/** Product in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1. */
export function multiply(a: number, b: number): number {
  let product = 0;
  for (let bit = 7; bit >= 0; bit--) {
    product = (product << 1) ^ ((product >>> 7) * 0x11d);
    product ^= ((b >>> bit) & 1) * a;
  }
  return product;
}

/** (x - 1)(x - 2)(x - 4)…, highest power first and its 1 left out. */
function generator(degree: number): number[] {
  let root = 1;
  let result = [...Array<number>(degree - 1).fill(0), 1];
  for (let index = 0; index < degree; index++) {
    result = result.map((value, at) => multiply(value, root) ^ (result[at + 1] ?? 0));
    root = multiply(root, 2);
  }
  return result;
}

function remainder(data: readonly number[], divisor: readonly number[]): number[] {
  let result = divisor.map(() => 0);
  for (const value of data) {
    const factor = value ^ (result[0] ?? 0);
    result = divisor.map((coefficient, at) => multiply(coefficient, factor) ^ (result[at + 1] ?? 0));
  }
  return result;
}

function draw(version: number, codewords: readonly number[], mask: number): Modules {
  const size = sizeOf(version);
  const modules: Modules = Array.from({ length: size }, () => Array<boolean>(size).fill(false));
  const taken: Modules = Array.from({ length: size }, () => Array<boolean>(size).fill(false));
  const set = (x: number, y: number, dark: boolean) => {
    const [row, claimed] = [modules[y], taken[y]];
    if (row === undefined || claimed === undefined || x < 0 || x >= size) return;
    row[x] = dark;
    claimed[x] = true;
  };
  for (let at = 0; at < size; at++) {
    set(6, at, at % 2 === 0);
    set(at, 6, at % 2 === 0);
  }
  for (const [x, y] of [
    [3, 3],
    [size - 4, 3],
    [3, size - 4],
  ] as const) {
    for (let dy = -4; dy <= 4; dy++)
      for (let dx = -4; dx <= 4; dx++) {
        const away = Math.max(Math.abs(dx), Math.abs(dy));
        set(x + dx, y + dy, away !== 2 && away !== 4);
      }
  }
  const lines = alignments(version);
  for (const y of lines)
    for (const x of lines) {
      // Three corners have finder patterns already.
      if ((x === 6 && y === 6) || (x === 6 && y === size - 7) || (x === size - 7 && y === 6)) continue;
      for (let dy = -2; dy <= 2; dy++)
        for (let dx = -2; dx <= 2; dx++) set(x + dx, y + dy, Math.max(Math.abs(dx), Math.abs(dy)) !== 1);
    }
  drawFormat(set, size, mask);
  if (version >= 7) drawVersion(set, size, version);
  let bit = 0;
  for (let right = size - 1; right >= 1; right -= 2) {
    if (right === 6) right = 5;
    for (let along = 0; along < size; along++) {
      const upwards = ((right + 1) & 2) === 0;
      const y = upwards ? size - 1 - along : along;
      for (const x of [right, right - 1]) {
        if (taken[y]?.[x]) continue;
        const dark = (((codewords[bit >>> 3] ?? 0) >>> (7 - (bit & 7))) & 1) === 1;
        bit += 1;
        const row = modules[y];
        if (row !== undefined) row[x] = dark !== (MASKS[mask]?.(x, y) ?? false);
      }
    }
  }
  return modules;
}

const MASKS: readonly ((x: number, y: number) => boolean)[] = [
  (x, y) => (x + y) % 2 === 0,
  (_, y) => y % 2 === 0,
  (x) => x % 3 === 0,
  (x, y) => (x + y) % 3 === 0,
  (x, y) => (Math.floor(x / 3) + Math.floor(y / 2)) % 2 === 0,
  (x, y) => ((x * y) % 2) + ((x * y) % 3) === 0,
  (x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2 === 0,
  (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2 === 0,
];

type Set = (x: number, y: number, dark: boolean) => void;

function drawFormat(set: Set, size: number, mask: number): void {
  const data = (LEVEL << 3) | mask;
  let rest = data;
  for (let index = 0; index < 10; index++) rest = (rest << 1) ^ ((rest >>> 9) * 0x537);
  const bits = ((data << 10) | rest) ^ 0x5412;
  const on = (index: number) => ((bits >>> index) & 1) === 1;
  for (let index = 0; index <= 5; index++) set(8, index, on(index));
  set(8, 7, on(6));
  set(8, 8, on(7));
  set(7, 8, on(8));
  for (let index = 9; index < 15; index++) set(14 - index, 8, on(index));
  for (let index = 0; index < 8; index++) set(size - 1 - index, 8, on(index));
  for (let index = 8; index < 15; index++) set(8, size - 15 + index, on(index));
  set(8, size - 8, true);
}

function drawVersion(set: Set, size: number, version: number): void {
  let rest = version;
  for (let index = 0; index < 12; index++) rest = (rest << 1) ^ ((rest >>> 11) * 0x1f25);
  const bits = (version << 12) | rest;
  for (let index = 0; index < 18; index++) {
    const on = ((bits >>> index) & 1) === 1;
    const [a, b] = [size - 11 + (index % 3), Math.floor(index / 3)];
    set(a, b, on);
    set(b, a, on);
  }
}

/** How hard a code is to read: long runs, blocks, what looks like a finder, and much more of one colour. */
function penalty(modules: Modules): number {
  const size = modules.length;
  let result = 0;
  let dark = 0;
  for (let y = 0; y < size; y++) {
    for (const line of [modules[y] ?? [], modules.map((row) => row[y] ?? false)]) {
      const text = line.map((module) => (module ? "1" : "0")).join("");
      for (const [run] of text.matchAll(/0{5,}|1{5,}/g)) result += run.length - 2;
      for (let at = 0; at + 11 <= size; at++)
        if (/^(10111010000|00001011101)$/.test(text.slice(at, at + 11))) result += 40;
    }
    for (let x = 0; x < size; x++) {
      if (modules[y]?.[x]) dark += 1;
      const same = [modules[y]?.[x + 1], modules[y + 1]?.[x], modules[y + 1]?.[x + 1]];
      if (same.every((other) => other === modules[y]?.[x])) result += 3;
    }
  }
  return result + 10 * (Math.ceil(Math.abs(dark * 20 - size * size * 10) / (size * size)) - 1);
}
