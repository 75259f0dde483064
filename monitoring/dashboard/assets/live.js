// Says when the dashboard itself no longer answers, and keeps the tab's title with the page.
setInterval(async () => {
  let answers = false;
  try {
    answers = (await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(4000) })).ok;
  } catch {
    answers = false;
  }
  const banner = document.getElementById("offline");
  if (banner && banner.classList.contains("shown") === answers) {
    const since = new Date().toISOString().slice(11, 19);
    banner.textContent = `The dashboard does not answer since ${since} UTC; what you see is old.`;
    banner.classList.toggle("shown", !answers);
  }
  const heading = document.querySelector("h1");
  if (heading) document.title = `${heading.textContent} - Headrace`;
}, 1500);
