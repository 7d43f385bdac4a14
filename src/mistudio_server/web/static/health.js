// Shows the health document of /api/health, and asks again every ten seconds while the page is in sight.
const INTERVAL_MS = 10_000;
const state = document.getElementById("state");
const checks = document.getElementById("checks");

function cell(text, className) {
  const element = document.createElement("td");
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

function show(health) {
  const healthy = health.status === "healthy";
  state.textContent = `${health.status} · version ${health.version} · release ${health.release}`;
  state.className = healthy ? "good" : "bad";
  checks.replaceChildren(
    ...Object.entries(health.checks ?? {}).map(([name, check]) => {
      const row = document.createElement("tr");
      const said = check.ok ? check.evidence : [check.evidence, check.hint].filter(Boolean).join(" — ");
      row.append(cell(name), cell(check.ok ? "ok" : "failed", check.ok ? "good" : "bad"), cell(said ?? ""));
      return row;
    }),
  );
}

async function ask() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/api/health", { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(8000) });
    show(await answer.json());
  } catch {
    state.textContent = "no backend answers";
    state.className = "bad";
  }
}

ask();
setInterval(ask, INTERVAL_MS);
document.addEventListener("visibilitychange", ask);
