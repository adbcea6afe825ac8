import { defineConfig } from "vite";

// Where `livedrag serve` listens while the page is being developed with `npm run dev`.
const server = "http://127.0.0.1:8000";

export default defineConfig({
  // Absolute, because the same index.html is served at / and at /r/{room}.
  base: "/",
  build: {
    outDir: "../static/app",
    emptyOutDir: true,
    target: "es2022",
    // Data addresses would be one more thing for the Content-Security-Policy to allow.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: {
      "/api": server,
      "/samples": server,
      "/healthz": server,
      "/ws": { target: server, ws: true },
    },
  },
});
