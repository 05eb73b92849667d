// Looks at pages in a real browser: what it complains about, what axe-core finds, what does not fit.
// node browser.mjs MODULES CHROMIUM ORIGIN [FOLDER]: paths on stdin, one a line; a JSON document on stdout.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
const [modules, executablePath, origin, folder] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const paths = readFileSync(0, "utf8").split("\n").filter(Boolean);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const found = [];
const looks = [["light", 360], ["dark", 800], ["light", 1400]];
let said = [];
// A tab costs a browser more than a page in it: each of the two shows all pages. The pages allow no script but their
// own, and axe is one more.
const page = await (await browser.newContext()).newPage();
const checked = await (await browser.newContext({ bypassCSP: true })).newPage();
page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
page.on("pageerror", (error) => said.push(`error: ${error}`));
page.on("dialog", (dialog) => { said.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
page.on("requestfailed", (request) => { if (!request.url().endsWith("/events")) said.push(`failed: ${request.url()}`); });
page.on("request", (request) => { if (!request.url().startsWith(origin) && !request.url().startsWith("data:")) said.push(`loads: ${request.url()}`); });
for (const [colorScheme, width] of looks) {
  for (const each of [page, checked]) {
    await each.emulateMedia({ colorScheme });
    await each.setViewportSize({ width, height: 900 });
  }
  for (const path of paths) {
    said = [];
    await page.goto(origin + path, { waitUntil: "load" });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    await page.keyboard.press("Tab");
    const first = await page.evaluate(() => document.activeElement.className);
    if (folder) {
      const name = (path.replace(/[^a-z0-9]+/gi, "-") || "-").slice(0, 40);
      await page.screenshot({ path: `${folder}/${colorScheme}-${width}${name}.png`, fullPage: true });
    }
    await checked.goto(origin + path, { waitUntil: "load" });
    await checked.evaluate(axe);
    const result = await checked.evaluate(() => window.axe.run());
    const violations = result.violations.map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => `${node.target}: ${node.failureSummary}`).join("; ")}`);
    found.push({ colorScheme, width, path, said, wide, first, violations });
  }
}
await browser.close();
console.log(JSON.stringify(found));
