import { render } from "preact";
import { App } from "./App.tsx";
import "./page.css";
import { registerServiceWorker } from "./service-worker.ts";

const root = window.document.getElementById("app");
if (root === null) throw new Error("index.html has no #app");
render(<App />, root);
registerServiceWorker();
