import { render } from "preact";
import { App } from "./components/App.tsx";
import "./styles/page.css";

const root = window.document.getElementById("app");
if (root === null) throw new Error("index.html has no #app");
render(<App />, root);
