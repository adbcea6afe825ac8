// The operator's page: shows what the server says every two seconds, and sends what the operator decides.
// The token or password goes into a header of every request, never into a cookie.

const REFRESH_MS = 2000;
const KEY = "livedrag-operator";
const base = document.querySelector('meta[name="livedrag-base"]').content;
const element = (id) => document.getElementById(id);

let secret = sessionStorage.getItem(KEY) ?? "";
let timer = 0;

class Refused extends Error {}

async function send(method, path, body) {
  const response = await fetch(`${base}/api/admin${path}`, {
    method,
    // A header is Latin-1: the password, which may have other letters, is percent-encoded.
    headers: { Authorization: `Bearer ${encodeURIComponent(secret)}`, "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
    credentials: "omit",
    cache: "no-store",
  });
  if (response.ok) return response.status === 204 ? null : response.json();
  const answer = await response.json().catch(() => null);
  const message = answer?.error?.message ?? `the server answered ${response.status}`;
  throw response.status === 401 ? new Refused(message) : new Error(message);
}

function open() {
  element("entry").hidden = true;
  element("status").hidden = false;
}

function leave(message) {
  clearTimeout(timer);
  secret = "";
  sessionStorage.removeItem(KEY);
  element("status").hidden = true;
  element("entry").hidden = false;
  element("entry-error").textContent = message;
  element("secret").focus();
}

async function refresh() {
  clearTimeout(timer);
  const asked = secret;
  try {
    const status = await send("GET", "");
    if (secret !== asked) return;
    sessionStorage.setItem(KEY, secret);
    open();
    show(status);
    element("notice").textContent = "";
  } catch (error) {
    if (secret !== asked) return;
    if (error instanceof Refused) return leave(error.message);
    element("notice").textContent = `Couldn't load the status: ${error.message}`;
    if (element("status").hidden) element("entry-error").textContent = element("notice").textContent;
  }
  timer = setTimeout(refresh, REFRESH_MS);
}

async function act(question, done, method, path, body) {
  if (!confirm(question)) return;
  try {
    await send(method, path, body);
    element("done").textContent = done;
    await refresh();
  } catch (error) {
    if (error instanceof Refused) leave(error.message);
    else element("notice").textContent = error.message;
  }
}

function show(status) {
  element("server").textContent = `${status.version} · model ${status.model}`;
  const totals = {
    People: status.people,
    "Rooms open": status.rooms_open,
    "Rooms stored": status.rooms_stored,
    "In the queue": status.queued,
    Disk: bytes(status.bytes),
    Saving: status.storage || "OK",
  };
  element("totals").replaceChildren(
    ...Object.entries(totals).map(([name, value]) => build("div", {}, build("dt", {}, name), build("dd", {}, value))),
  );
  replaceRows(
    element("workers"),
    Object.entries(status.nodes).flatMap(([node, workers]) => workers.map((worker) => workerRow(node, worker))),
  );
  replaceRows(element("rooms"), status.rooms.map(roomRow));
  const hidden = status.rooms_stored - status.rooms.length;
  element("more").textContent = hidden > 0 ? `${hidden} more rooms, unused for longer, are not shown.` : "";
}

/** Replaces the rows unless they are the same, so that the focus and a selection stay where they are. */
function replaceRows(table, rows) {
  const focused = document.activeElement?.dataset.action;
  if ([...table.rows].map((row) => row.outerHTML).join() === rows.map((row) => row.outerHTML).join()) return;
  table.replaceChildren(...rows);
  if (focused) table.querySelector(`[data-action="${CSS.escape(focused)}"]`)?.focus();
}

function workerRow(node, worker) {
  const drain = button(`drain ${worker.id}`, "Drain", `Drain worker ${worker.id}`, () =>
    act(
      `Drain worker ${worker.id}? It gets no more rooms, gives away those that it has, and ends.`,
      `Worker ${worker.id} is draining.`,
      "POST",
      "/drain",
      { worker: worker.id },
    ),
  );
  return build(
    "tr",
    {},
    build("td", {}, node),
    build("td", {}, worker.id),
    build("td", {}, worker.state),
    ...[worker.sessions, worker.running, worker.queued, bytes(worker.bytes), worker.restarts].map(number),
    build("td", { class: "actions" }, ...(worker.state === "draining" ? [] : [drain])),
  );
}

function roomRow(room) {
  const path = `/rooms/${encodeURIComponent(room.id)}`;
  const named = room.title ? `${room.id} (“${room.title}”)` : room.id;
  const eject = button(`eject ${room.id}`, "Eject", `Eject everyone from room ${room.id}`, () =>
    act(
      `Eject everyone from room ${named}? Its run is interrupted and it leaves the device. People may come back.`,
      `Room ${room.id} was ejected.`,
      "POST",
      `${path}/eject`,
    ),
  );
  const remove = button(`delete ${room.id}`, "Delete", `Delete room ${room.id}`, () =>
    act(
      `Delete room ${named} with everything in it? This cannot be undone.`,
      `Room ${room.id} was deleted.`,
      "DELETE",
      path,
    ),
  );
  remove.classList.add("danger");
  const people = room.people.map((person) => `${person.name} (${person.role})`).join(", ");
  return build(
    "tr",
    {},
    build("td", {}, room.id),
    build("td", { class: "title" }, room.title || "–"),
    build("td", { class: "people" }, people || "–"),
    build("td", {}, run(room)),
    build("td", {}, room.worker || "–"),
    number(`${room.device_seconds.toFixed(1)} s`),
    number(bytes(room.bytes)),
    build("td", {}, new Date(room.used * 1000).toLocaleString()),
    build("td", { class: "actions" }, eject, remove),
  );
}

function run(room) {
  if (room.run === "queued") return `queued behind ${room.ahead}`;
  if (room.run === "dragging") return `dragging, iteration ${room.iteration}`;
  return room.run || "–";
}

function build(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

function button(action, text, label, onClick) {
  const made = build("button", { type: "button", "data-action": action, "aria-label": label }, text);
  made.addEventListener("click", onClick);
  return made;
}

function number(value) {
  return build("td", { class: "number" }, value);
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (count >= 1024 && power < units.length - 1) {
    count /= 1024;
    power += 1;
  }
  return `${power === 0 ? count : count.toFixed(1)} ${units[power]}`;
}

element("entry-form").addEventListener("submit", (event) => {
  event.preventDefault();
  secret = element("secret").value;
  element("secret").value = "";
  element("entry-error").textContent = "";
  void refresh();
});
element("leave").addEventListener("click", () => leave(""));
if (secret) void refresh();
