// Counts what the conformance suite has found: `node score.mjs TITLE DIRECTORY SCORED [OTHER...]`.
// DIRECTORY holds the suite's `log` and a folder for each scenario. All SCORED scenarios of the set must have passed,
// and the OTHER ones, which are named since the suite runs them without counting them; further ones are extensions.
// A warning is a SHOULD that was not met: it fails nothing, but is printed. `scripts/conformance` runs this.

import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const [title, directory, wanted, ...others] = process.argv.slice(2);

/** The checks of each scenario that got as far as writing them down. */
const checks = new Map();
for (const folder of readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isDirectory())) {
  const written = join(directory, folder.name, 'checks.json');
  if (!existsSync(written)) continue;
  const scenario = folder.name.replace(/^server-/, '').replace(/-\d{4}-\d{2}-\d{2}T[\d-]+Z$/, '');
  checks.set(scenario, JSON.parse(readFileSync(written, 'utf8')));
}

/** What the suite says of each scenario at the end of its log, and which of them it does not count. */
const summary = readFileSync(join(directory, 'log'), 'utf8').split('=== SUMMARY ===')[1] ?? '';
const lines = [...summary.matchAll(/^([✓✗]) (\S+): /gm)];
const passed = new Map(lines.map(([, mark, scenario]) => [scenario, mark === '✓']));
const uncounted = new Set([...summary.matchAll(/^ {2}[✓✗] (\S+) \(/gm)].map(([, scenario]) => scenario));

const scored = [...passed.keys()].filter((scenario) => !uncounted.has(scenario));
const good = (scenarios) => scenarios.filter((scenario) => passed.get(scenario)).length;
const report = (scenario, status, label) => {
  const found = (checks.get(scenario) ?? []).filter((check) => check.status === status);
  return found.map(({ id, errorMessage }) => `  ${label} ${scenario}: ${id}: ${String(errorMessage).slice(0, 200)}`);
};
const failures = [...scored, ...others].filter((scenario) => !passed.get(scenario));
const warnings = [...scored, ...others].flatMap((scenario) => report(scenario, 'WARNING', 'warning'));

let line = `${title.padEnd(34)} ${String(good(scored)).padStart(2)} of ${wanted}`;
if (others.length) line += `, ${good(others)} of ${others.length} that do not count`;
if (warnings.length) line += `, ${warnings.length} warning${warnings.length > 1 ? 's' : ''}`;
console.log(line);
for (const scenario of failures) {
  const why = report(scenario, 'FAILURE', 'FAILED');
  console.log(why.length ? why.join('\n') : `  FAILED ${scenario}`);
}
for (const warning of warnings) console.log(warning);
const all = good(scored) === Number(wanted) && scored.length === Number(wanted) && failures.length === 0;
if (!all) console.log(`  more in ${directory}`);
process.exit(all ? 0 : 1);
