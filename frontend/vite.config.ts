import { defineConfig } from "vite";
import type { Plugin } from "vite";

// Where `livedrag serve` listens while the page is being developed with `npm run dev`.
const server = "http://127.0.0.1:8000";

const SERVICE_WORKER = "service-worker";

/** Lists the page's files in the service worker, which stores them. */
function listPageFiles(): Plugin {
  return {
    name: "list-page-files",
    generateBundle(_options, bundle) {
      const worker = bundle[`${SERVICE_WORKER}.js`];
      if (worker?.type !== "chunk") throw new Error("the build has no service worker");
      const files = Object.keys(bundle).filter((name) => name.startsWith("assets/"));
      worker.code = worker.code.replaceAll("__PAGE_FILES__", JSON.stringify(files.toSorted()));
    },
  };
}

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
    rollupOptions: {
      input: { index: "index.html", [SERVICE_WORKER]: "src/worker/service-worker.ts" },
      output: {
        // It serves what lies beside it and below.
        entryFileNames: ({ name }) => (name === SERVICE_WORKER ? "[name].js" : "assets/[name]-[hash].js"),
      },
    },
  },
  // Scripts find each other below whatever path the page is served under.
  experimental: {
    renderBuiltUrl: (_file, { hostType, type }) =>
      hostType === "js" && type === "asset" ? { relative: true } : undefined,
  },
  plugins: [listPageFiles()],
  server: {
    proxy: {
      "/api": server,
      "/samples": server,
      "/healthz": server,
      "/ws": { target: server, ws: true },
    },
  },
});
