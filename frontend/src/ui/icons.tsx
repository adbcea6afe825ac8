/** Icons on a 20 x 20 grid, in the text's colour. They are decoration: the control they are in has the name. */

import type { ComponentChildren } from "preact";

/** A length that grows with the text, from pixels at the usual size of text. */
const rem = (pixels: number) => `${pixels / 16}rem`;

function Icon({ children, size = 20 }: { readonly children: ComponentChildren; readonly size?: number }) {
  return (
    <svg
      class="icon"
      width={rem(size)}
      height={rem(size)}
      viewBox="0 0 20 20"
      fill="none"
      stroke="currentColor"
      stroke-width="1.6"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
    >
      {children}
    </svg>
  );
}

export const PointsIcon = () => (
  <Icon>
    <circle cx="5" cy="14.5" r="2.8" fill="currentColor" stroke="none" />
    <path d="M8 12 12 8" />
    <circle cx="14.5" cy="5.5" r="3" />
  </Icon>
);
export const PinIcon = () => (
  <Icon>
    <path d="M7 3.5h6M8 3.5v5l-2 3h8l-2-3v-5M10 11.5v5.5" />
  </Icon>
);
export const PaintIcon = () => (
  <Icon>
    <path d="M16.8 3.2c-3 .8-6.4 3.7-8.3 6.8l1.7 1.7c3.1-1.9 6-5.3 6.8-8.3z" />
    <path d="M7.3 11c-2.2.1-2.7 1.7-2.9 3.1-.1.9-.6 1.6-1.4 1.9 2.2 1 6 .5 6-2.6" />
  </Icon>
);
export const RectangleIcon = () => (
  <Icon>
    <rect x="3" y="4.5" width="14" height="11" rx="1" stroke-dasharray="3 2.2" />
  </Icon>
);
export const LassoIcon = () => (
  <Icon>
    <path d="M6.4 13.2C4.3 12.3 3 10.8 3 9c0-3 3.1-5.2 7-5.2s7 2.2 7 5.2-3.1 5.2-7 5.2c-.9 0-1.7-.1-2.5-.3" />
    <circle cx="6.4" cy="13.6" r="1.6" />
    <path d="M6 15.2c0 1-.5 1.7-1.5 2" />
  </Icon>
);
export const SelectIcon = () => (
  <Icon>
    <path d="m4 16.5 7.6-7.6" />
    <path d="M13.5 3v2.6M13.5 11v2M9 7.2H7M17.5 7.2h-2M16.3 4.3l-1 1M10.7 4.3l1 1M16.3 10.1l-1-1" />
  </Icon>
);
export const DrawIcon = () => (
  <Icon>
    <path d="m4 16 .9-3.6 8.6-8.6a1.3 1.3 0 0 1 1.9 0l.8.8a1.3 1.3 0 0 1 0 1.9l-8.6 8.6z" />
    <path d="m12 5.3 2.7 2.7M11 16.5h5.5" />
  </Icon>
);
export const EraseIcon = () => (
  <Icon>
    <path d="m3.6 11.6 7.5-7.5a1.5 1.5 0 0 1 2.1 0l2.7 2.7a1.5 1.5 0 0 1 0 2.1L9.5 15.5H7z" />
    <path d="m7.5 7.8 4.8 4.8M7 15.5h9.5" />
  </Icon>
);
export const HandIcon = () => (
  <Icon>
    <path d="M6.2 10.8V5.4a1.2 1.2 0 0 1 2.4 0V9M8.6 9V3.9a1.2 1.2 0 0 1 2.4 0V9M11 9V4.8a1.2 1.2 0 0 1 2.4 0V10M13.4 10V6.8a1.2 1.2 0 0 1 2.4 0v5.4a5.3 5.3 0 0 1-5.3 5.3c-2.3 0-3.7-1-4.8-2.9l-2-3.5a1.2 1.2 0 0 1 2-1.3l1.3 1.7" />
  </Icon>
);
export const SplitIcon = () => (
  <Icon>
    <rect x="3" y="4" width="14" height="12" rx="2" />
    <path d="M10 2.5v15M6.8 8.3 5 10l1.8 1.7M13.2 8.3 15 10l-1.8 1.7" />
  </Icon>
);
export const SideBySideIcon = () => (
  <Icon>
    <rect x="2.5" y="5" width="6.5" height="10" rx="1.5" />
    <rect x="11" y="5" width="6.5" height="10" rx="1.5" fill="currentColor" fill-opacity="0.35" />
  </Icon>
);
export const FlickerIcon = () => (
  <Icon>
    <rect x="3" y="3.5" width="10" height="8.5" rx="1.5" />
    <path d="M16.5 7.5V15a1.5 1.5 0 0 1-1.5 1.5H6.5M9 14.3l-2.5 2.2L9 18.7" />
  </Icon>
);
export const BranchIcon = () => (
  <Icon>
    <circle cx="5" cy="15.5" r="1.8" />
    <circle cx="5" cy="4.5" r="1.8" />
    <circle cx="15" cy="6.5" r="1.8" />
    <path d="M5 6.3v7.4M5 11.5c5.5 0 8.5-.5 10-3.2" />
  </Icon>
);
export const PlusIcon = () => (
  <Icon size={16}>
    <path d="M10 4.5v11M4.5 10h11" />
  </Icon>
);
export const MinusIcon = () => (
  <Icon size={16}>
    <path d="M4.5 10h11" />
  </Icon>
);
export const FitIcon = () => (
  <Icon size={16}>
    <path d="M3.5 7.5v-4h4M16.5 7.5v-4h-4M3.5 12.5v4h4M16.5 12.5v4h-4" />
  </Icon>
);
export const UndoIcon = () => (
  <Icon>
    <path d="M7 4 3.5 7.5 7 11M3.5 7.5h8a4.5 4.5 0 0 1 0 9H8" />
  </Icon>
);
export const RedoIcon = () => (
  <Icon>
    <path d="m13 4 3.5 3.5L13 11M16.5 7.5h-8a4.5 4.5 0 0 0 0 9H12" />
  </Icon>
);
export const ShareIcon = () => (
  <Icon>
    <circle cx="7.5" cy="7" r="2.8" />
    <path d="M2.5 16c.4-3 2.4-4.6 5-4.6s4.6 1.6 5 4.6M15 6.5v5M12.5 9h5" />
  </Icon>
);
export const MoreIcon = () => (
  <Icon>
    <path d="M4.5 10h.01M10 10h.01M15.5 10h.01" stroke-width="2.6" />
  </Icon>
);
export const CopyIcon = () => (
  <Icon size={16}>
    <rect x="7" y="7" width="9.5" height="9.5" rx="2" />
    <path d="M13 4.5A1.5 1.5 0 0 0 11.5 3.5h-6A2 2 0 0 0 3.5 5.5v6A1.5 1.5 0 0 0 4.5 13" />
  </Icon>
);
export const PauseIcon = () => (
  <Icon>
    <path d="M7 4.5v11M13 4.5v11" stroke-width="2.6" />
  </Icon>
);
export const CompareIcon = () => (
  <Icon>
    <path d="M2.5 10S5.5 4.8 10 4.8 17.5 10 17.5 10 14.5 15.2 10 15.2 2.5 10 2.5 10z" />
    <circle cx="10" cy="10" r="2.4" />
  </Icon>
);
export const ResetIcon = () => (
  <Icon>
    <path d="M4 8.5a6.5 6.5 0 1 1 .4 4.5" />
    <path d="M3.5 4v4.5H8" />
  </Icon>
);
export const DownloadIcon = () => (
  <Icon>
    <path d="M10 3v9.5M6 9l4 4 4-4M4 16.5h12" />
  </Icon>
);
export const CloseIcon = () => (
  <Icon size={16}>
    <path d="m5 5 10 10M15 5 5 15" />
  </Icon>
);
export const KeyboardIcon = () => (
  <Icon>
    <rect x="2.5" y="5" width="15" height="10.5" rx="2" />
    <path d="M5.5 8h.01M8.5 8h.01M11.5 8h.01M14.5 8h.01M5.5 10.5h.01M14.5 10.5h.01M7.5 12.7h5" />
  </Icon>
);
export const PictureIcon = () => (
  <Icon>
    <rect x="3" y="3.5" width="14" height="13" rx="2" />
    <circle cx="7.3" cy="7.7" r="1.3" />
    <path d="m3.5 14 4-3.5 3 2.5 2.5-2 3.5 3" />
  </Icon>
);
export const ChevronIcon = () => (
  <Icon size={16}>
    <path d="m7 4.5 5.5 5.5L7 15.5" />
  </Icon>
);
export const PlayIcon = () => (
  <Icon>
    <path
      d="M6 4.2v11.6c0 .6.7 1 1.2.7l9-5.8a.8.8 0 0 0 0-1.4l-9-5.8A.8.8 0 0 0 6 4.2z"
      fill="currentColor"
      stroke="none"
    />
  </Icon>
);
export const StopIcon = () => (
  <Icon>
    <rect x="5" y="5" width="10" height="10" rx="2" fill="currentColor" stroke="none" />
  </Icon>
);
export const ArrowIcon = () => (
  <Icon size={14}>
    <path d="M3 10h13M11.5 5l5 5-5 5" />
  </Icon>
);

/** The mark: a handle on its way to a target. */
export const Mark = ({ size = 26 }: { readonly size?: number }) => (
  <svg class="mark" width={rem(size)} height={rem(size)} viewBox="0 0 32 32" aria-hidden="true">
    <rect width="32" height="32" rx="9" fill="var(--accent)" />
    <path d="M11.5 20.5 19 13" stroke="#fff" stroke-width="2.6" stroke-linecap="round" opacity=".65" />
    <circle cx="10" cy="22" r="4" fill="#fff" />
    <circle cx="21.8" cy="10.2" r="4" fill="none" stroke="#fff" stroke-width="2.6" />
  </svg>
);
