// What keeps a page up to date: it asks again while somebody can see it, and writes what has changed in its place.

const place = (id) => document.getElementById(id);

// Asks each address every so many seconds, not while the page is hidden or paused. `take` gets what has changed.
class Refresh {
  constructor(every, asked) {
    this.every = every * 1000;
    this.asked = asked.map((one) => ({ ...one, etag: "" }));
    this.paused = false;
    this.timer = 0;
    this.last = null;
    const button = place("pause");
    button.hidden = false;
    button.addEventListener("click", () => this.pause(!this.paused));
    document.addEventListener("visibilitychange", () => this.now());
    this.now();
  }

  pause(paused) {
    this.paused = paused;
    place("pause").setAttribute("aria-pressed", paused);
    place("pause").textContent = paused ? "Go on" : "Pause";
    this.now();
  }

  // Ask now, and from then on; or no more.
  async now() {
    clearTimeout(this.timer);
    this.timer = 0;
    if (this.paused || document.hidden || this.asking) return this.tell();
    this.asking = true;
    let wrong = "";
    for (const one of this.asked) wrong = (await this.ask(one)) || wrong;
    this.asking = false;
    if (!wrong) this.last = new Date();
    this.tell(wrong);
    document.documentElement.dataset.asked = Number(document.documentElement.dataset.asked ?? 0) + 1;
    if (!this.paused && !document.hidden) this.timer = setTimeout(() => this.now(), this.every);
  }

  async ask(one) {
    try {
      const headers = one.etag ? { "If-None-Match": one.etag } : {};
      const answer = await fetch(one.address, { headers, cache: "no-store", credentials: "same-origin" });
      if (answer.status === 304) return "";
      if (!answer.ok) return `${answer.status}: ${(await answer.text()).trim().slice(0, 200)}`;
      one.etag = answer.headers.get("ETag") ?? "";
      one.take(one.address.endsWith(".json") ? await answer.json() : await answer.text());
      return "";
    } catch (error) {
      return "gomem does not answer";
    }
  }

  tell(wrong = "") {
    const since = this.last ? this.last.toLocaleTimeString("en-GB") : "";
    const words = this.paused ? `paused${since && ` since ${since}`}` : wrong ? `${wrong}${since && `; as of ${since}`}` : since && `as of ${since}`;
    write(place("refreshed"), words);
    place("refreshed").className = wrong && !this.paused ? "bad" : "soft";
  }
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Make a part of the page what a newer one is, and touch nothing that is as it was: focus and scroll places stay.
function become(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return void old.replaceWith(document.importNode(fresh, true));
  if (old.nodeType === Node.TEXT_NODE) return void (old.data = fresh.data);
  if (old.nodeType !== Node.ELEMENT_NODE) return;
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  if (old.childNodes.length !== fresh.childNodes.length) {
    return old.replaceChildren(...[...fresh.childNodes].map((node) => document.importNode(node, true)));
  }
  const [before, after] = [[...old.childNodes], [...fresh.childNodes]];
  before.forEach((node, at) => become(node, after[at]));
}
