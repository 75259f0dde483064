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

// A page of another shape replaces the old one, and with it what had the focus: give it back to the
// element that means the same.
const meaning = (one) =>
  `${one.tagName} ${one.getAttribute("href") || one.getAttribute("aria-label") || one.textContent}`;
let focused = "";
document.addEventListener("focusin", (event) => {
  focused = meaning(event.target);
});
document.addEventListener("pointerdown", () => {
  focused = "";
});
new MutationObserver(() => {
  if (!focused || document.activeElement !== document.body) return;
  const same = [...document.querySelectorAll("a, button, [tabindex]")];
  same.find((one) => meaning(one) === focused)?.focus({ preventScroll: true });
}).observe(document.documentElement, { childList: true, subtree: true });
