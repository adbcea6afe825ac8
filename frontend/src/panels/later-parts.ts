/** What `later.ts` loads, in one file. */

export { Activities } from "./Activities.tsx";
export { AdvancedSettings } from "./AdvancedSettings.tsx";
export { Branches } from "./Branches.tsx";
export { Chart } from "./Chart.tsx";
export { PictureDialog } from "./PictureDialog.tsx";
export { Share } from "./Share.tsx";
export { Tour } from "./Tour.tsx";
export { TrialsDialog } from "./Trials.tsx";
