import { ActivityList } from "./Activity.tsx";
import { Tour } from "./later.ts";
import { MaskSection } from "./Mask.tsx";
import { ModelCard, UnknownPictureNote } from "./Model.tsx";
import { PointList } from "./Points.tsx";
import { PromptSection } from "./Prompt.tsx";
import { SettingsSection } from "./Settings.tsx";
import { texts } from "./texts.ts";

export function Panel() {
  return (
    <aside class="panel" aria-label={texts.panel}>
      <Tour />
      <UnknownPictureNote />
      <PointList />
      <MaskSection />
      <PromptSection />
      <SettingsSection />
      <ActivityList />
      <ModelCard />
    </aside>
  );
}
