#!/usr/bin/env python3
"""The page of `tptrain report` in headless Chromium, driven by its DevTools protocol over two pipes: curves are drawn, nothing is
fetched, the console stays empty though names are hostile, controls work by keyboard, light and dark differ and both can be read.
Exit code 77 (skipped) where no Chromium is installed.
  browser.py TPTRAIN            the test
  browser.py TPTRAIN --pictures FOLDER RUN_DIR ...    also leaves report-light.png and report-dark.png of these runs there"""
import base64, json, os, pathlib, shutil, subprocess, sys, tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from run_directories import HOSTILE, write_run

browser_path = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"))), None)
if browser_path is None:
    print("skipped: no Chromium on the PATH (apt-get install chromium-headless-shell)")
    sys.exit(77)


class Browser:
    """One page. Calls wait for their answer; events are kept."""

    def __init__(self, profile):
        to_browser, from_us = os.pipe()
        from_browser, to_us = os.pipe()

        def use_pipes():  # the protocol's are descriptors 3 and 4
            high = [os.dup(to_browser), os.dup(to_us)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [browser_path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
             f"--user-data-dir={profile}", "--hide-scrollbars", "about:blank"],
            preexec_fn=use_pipes, close_fds=False, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(to_us)
        self.out, self.inp = os.fdopen(from_us, "wb"), os.fdopen(from_browser, "rb")
        self.events, self.buffer, self.number, self.session = [], b"", 0, None
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def read(self):
        while b"\0" not in self.buffer:
            more = self.inp.raw.read(1 << 20)
            assert more, "the browser ended"
            self.buffer += more
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.out.write(json.dumps(message).encode() + b"\0")
        self.out.flush()
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            self.events.append(answer)

    def open(self, path):
        self.call("Page.navigate", url=pathlib.Path(path).as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.read())

    def value(self, expression, wait=False):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=wait)
        assert "exceptionDetails" not in result, (expression, result)
        return result["result"].get("value")

    def key(self, key, code):
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, path=None, height=900):
        self.call("Emulation.setDeviceMetricsOverride", width=1280, height=height, deviceScaleFactor=1, mobile=False)
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path:
            pathlib.Path(path).write_bytes(data)
        return data

    def close(self):
        self.call("Browser.close")
        self.process.wait(300)


def complaints(browser):
    wrong = []
    for event in browser.events:
        if event.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            wrong.append(event)
        if event.get("method") == "Network.requestWillBeSent":
            url = event["params"]["request"]["url"]
            if not url.startswith(("file:", "data:")):
                wrong.append(event)
    return wrong


# Luminance contrast by WCAG 2 of each visible text with what stands behind it.
CONTRAST = """(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  let worst = 21;
  for (const node of document.querySelectorAll("h1, h2, h3, p, td, th, label, output, summary, svg text, li")) {
    if (!node.textContent.trim() || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(parse(node.ownerSVGElement ? style.fill : style.color)), light(behind(node.ownerSVGElement ? node.ownerSVGElement : node))];
    worst = Math.min(worst, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return worst;
})()"""
# What has no name for a screen reader.
NAMELESS = """[...document.querySelectorAll("input, select, svg[role=img], figure, section, form")].filter((node) =>
  !(node.getAttribute("aria-label") || node.getAttribute("aria-labelledby") || (node.labels && node.labels.length))).map((node) => node.outerHTML.slice(0, 120))"""
SHOW_LEARNING = "[...document.querySelectorAll('figure')].map((figure) => figure.querySelector('h3').textContent)"


def check(browser):
    titles = browser.value(SHOW_LEARNING)
    for wanted in ("Loss (nats)", "Held-out loss (nats)", "Gradient norm", "Learning rate", "Throughput (tokens/s)",
                   "Model FLOPs utilization (%)", "Peak memory of rank 0 (GiB)", "Time of a step (s)"):
        assert wanted in titles, (wanted, titles)
    drawn = browser.value("[...document.querySelectorAll('figure')].map((figure) => [...figure.querySelectorAll('path.curve')].map((path) => path.getTotalLength()))")
    assert len(drawn) == len(titles) and all(len(curves) == 2 and all(length > 100 for length in curves) for curves in drawn), drawn
    restarts = browser.value("[...document.querySelectorAll('.restart')].map((line) => line.outerHTML)")
    assert len(restarts) == 1, restarts
    assert browser.value("document.querySelectorAll('.save').length") == 4
    assert browser.value("document.querySelectorAll('img, iframe, object').length") == 0
    assert HOSTILE.replace("/", "") in browser.value("document.body.innerText")

    # By keyboard: the cursor of a chart is a range input, which says where it stands.
    focus = "document.querySelector('figure input').focus()"
    said = "document.querySelector('figure input').getAttribute('aria-valuetext')"
    browser.value(focus)
    browser.key("Home", 36)
    first = browser.value(said)
    browser.key("ArrowRight", 39)
    browser.key("End", 35)
    last = browser.value(said)
    assert first != last and "at" in first and browser.value("document.querySelector('figure output').textContent") == last, (first, last)

    # The axes, smoothing and the runs' own boxes.
    curve = "document.querySelector('path.curve').getAttribute('d')"
    seen = [browser.value(curve)]
    for change in ("const a = document.getElementById('logarithmic'); a.checked = false; a.dispatchEvent(new Event('input'))",
                   "const b = document.getElementById('smoothing'); b.value = 0; b.dispatchEvent(new Event('input'))",
                   "const c = document.getElementById('x-axis'); c.value = 'time'; c.dispatchEvent(new Event('input'))"):
        browser.value(change)
        seen.append(browser.value(curve))
        assert seen[-1] != seen[-2] and "NaN" not in seen[-1], (change, seen[-2][:100], seen[-1][:300])
    browser.value("const d = document.querySelector('input[data-run]'); d.checked = false; d.dispatchEvent(new Event('input'))")
    assert browser.value("document.querySelectorAll('figure:first-child path.curve').length") == 1
    assert browser.value(NAMELESS) == [], browser.value(NAMELESS)
    # Between two powers of ten an axis has numbers all the same, and such as tell them apart.
    for low, high in ((11.82, 11.95), (11.8431, 11.8439), (2.1, 10.6), (3e-7, 4e-2), (43e9, 43.001e9)):
        said = browser.value(f"labels(scale([{low}, {high}], 280, 12, true).ticks(5))")
        assert len(said) > 2 and len(set(said)) == len(said), (low, high, said)
    unlabelled = browser.value("[...document.querySelectorAll('figure')].filter((figure) => figure.querySelectorAll('.y-label').length < 2).length")
    assert unlabelled == 0, unlabelled
    # Nothing is wider than a narrow window but what scrolls by itself, and what is written there can be read.
    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1, mobile=True)
    assert browser.value("document.documentElement.scrollWidth") <= 360, browser.value("document.documentElement.scrollWidth")
    height = "Math.min(...[...document.querySelectorAll('figure svg text')].map((text) => text.getBoundingClientRect().height))"
    browser.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))", wait=True)
    assert browser.value(height) >= 12, browser.value(height)


directory = pathlib.Path(tempfile.mkdtemp())
write_run(directory / "runs/a", 3000, restart_at=1200, name="a")
write_run(directory / "runs" / ("b " + HOSTILE).replace("/", ""), 2400, rate=1e-4, seed=2, name="b")
subprocess.run([sys.argv[1], "report", "runs", "--out", "report.html", "--title", "Two learning rates"], cwd=directory, check=True)
browser = Browser(directory / "profile")
try:
    browser.open(directory / "report.html")
    pictures = {}
    for theme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        pictures[theme] = browser.picture()
        contrast = browser.value(CONTRAST)
        assert contrast >= 4.5, (theme, contrast)
    assert pictures["light"] != pictures["dark"]
    check(browser)
    assert not complaints(browser), complaints(browser)
    if sys.argv[2:3] == ["--pictures"]:
        folder = pathlib.Path(sys.argv[3])
        subprocess.run([sys.argv[1], "report", *sys.argv[4:], "--out", directory / "report.html"], check=True)
        browser.events.clear()
        browser.open(directory / "report.html")
        for theme in ("light", "dark"):
            browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
            browser.picture(folder / f"report-{theme}.png", height=1500)
finally:
    browser.close()
print("ok")
