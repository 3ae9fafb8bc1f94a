"use strict";

// Who we are stands in the address: EventSource sends no headers of its own.
const who = new URLSearchParams(location.search);
const jobs = document.getElementById("jobs");
const trouble = document.getElementById("trouble");
const connection = document.getElementById("connection");
const rows = new Map();

document.getElementById("who").textContent = `${who.get("user")} of ${who.get("tenant")}`;

async function post(path, body) {
  trouble.textContent = "";
  try {
    const response = await fetch(path + location.search, { method: "POST", body: JSON.stringify(body ?? {}) });
    if (!response.ok) trouble.textContent = await response.text();
  } catch {
    trouble.textContent = "The server cannot be reached.";
  }
}

function rowOf(id) {
  if (!rows.has(id)) {
    const row = document.getElementById("job").content.firstElementChild.cloneNode(true);
    row.querySelector(".revoke").addEventListener("click", () => post(`/jobs/${id}/revoke`));
    row.querySelector(".retry").addEventListener("click", () => post(`/jobs/${id}/retry`));
    jobs.prepend(row);
    rows.set(id, row);
    document.getElementById("none").hidden = true;
  }
  return rows.get(id);
}

const ENDED = new Set(["SUCCESS", "FAILURE", "REVOKED", "INVALID"]);

// Each event says all there is to know of a job, so the last one is all that counts. What it says is text, whatever it looks like.
function show(job) {
  const row = rowOf(job.id);
  const { done, total, message } = job.progress ?? {};
  row.dataset.state = job.state;
  row.querySelector(".title").textContent = job.metadata.title ?? "untitled";
  row.querySelector(".state").textContent = job.state.toLowerCase();
  row.querySelector(".said").textContent = job.error ?? message ?? (total ? `${done} of ${total} pages` : "");
  row.querySelector(".revoke").hidden = ENDED.has(job.state);
  row.querySelector(".retry").hidden = !ENDED.has(job.state) || job.state === "SUCCESS";
  const bar = row.querySelector("progress");
  if (total) bar.value = done / total;
  else if (ENDED.has(job.state) || job.state === "PENDING") bar.value = job.state === "SUCCESS" ? 1 : 0;
  else bar.removeAttribute("value"); // how far it is, is not known
}

const events = new EventSource("/events" + location.search);
events.addEventListener("open", () => { connection.textContent = "live"; });
events.addEventListener("error", () => { connection.textContent = "connecting"; }); // it comes back by itself, with the last id
events.addEventListener("job", (event) => show(JSON.parse(event.data)));
events.addEventListener("list", (event) => {
  jobs.replaceChildren();
  rows.clear();
  document.getElementById("none").hidden = false;
  JSON.parse(event.data).forEach(show);
});

document.getElementById("new").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  post("/jobs", { title: form.get("title"), pages: Number(form.get("pages")) });
});
