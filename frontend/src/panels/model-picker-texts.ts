/** Texts of the model picker, which is loaded when it is opened. */

export const texts = {
  title: "Model",
  loading: "Reading the list of models…",
  model: "Model",
  default: (name: string) => `${name} (the server’s)`,
  none: "This server has no other models. Start it with",
  noneOption: "--models DIR",
  noneFolder: "where DIR is the folder of your models.",
  vae: "Autoencoder (VAE)",
  ownVae: "The model’s own",
  chooseVae: "Choose one: this model has none",
  needsVae: "needs a VAE",
  loras: "LoRAs",
  weight: (name: string) => `Weight of ${name}`,
  unusable: "Can’t be used",
  apply: "Use this model",
  explanation: "Everyone in this room gets the model, and the picture is prepared again.",
  running: "A run is under way: press Stop to change the model.",
  failed: (message: string) => `Couldn’t read the list of models: ${message}`,
  goodFor: {
    builtin: "small; for emoji and simple drawings",
    "stable-diffusion": "for photos and drawings of about 512 pixels",
    "stable-diffusion-xl": "for photos and drawings of about 1024 pixels; needs the most memory",
  } as Readonly<Record<string, string>>,
  size: (bytes: number) =>
    bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : bytes >= 1e6 ? `${Math.round(bytes / 1e6)} MB` : "",
};
