/** The panels and dialogs that the first screen does without. They are loaded together, right after it. */

import { lazy } from "../ui/lazy.tsx";

const parts = () => import("./later-parts.ts");

export const Activities = lazy(async () => (await parts()).Activities);
export const AdvancedSettings = lazy(async () => (await parts()).AdvancedSettings);
export const Branches = lazy(async () => (await parts()).Branches);
export const Chart = lazy(async () => (await parts()).Chart);
export const PictureDialog = lazy(async () => (await parts()).PictureDialog);
export const Share = lazy(async () => (await parts()).Share);
export const Tour = lazy(async () => (await parts()).Tour);
export const TrialsDialog = lazy(async () => (await parts()).TrialsDialog);
