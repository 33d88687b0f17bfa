// The two programs of a soak: the lab's live kernel, and the daemon beside it.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync, readFileSync, readdirSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

// How long a program may take to end after it was asked to.
const END_SECONDS = 120;
const READY_SECONDS = 60;

export const now = () => Date.now() / 1000;

export const isRunning = child => child.exitCode === null && child.signalCode === null;

const ended = async child => {
  const limit = AbortSignal.timeout(END_SECONDS * 1000);
  if (isRunning(child)) await once(child, 'exit', { signal: limit });
  return child.exitCode ?? child.signalCode;
};

export const startKernel = async ({ mode, lab }, here, { directory, blockLog, say }) => {
  const args = ['lab.mjs', '--out', directory, '--keep', mode, '--block-log', blockLog, ...lab];
  const child = spawn('node', args, { cwd: here, stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout });
  await new Promise((resolve, reject) => {
    lines.on('line', line => {
      if (line === 'live') resolve();
      else if (!line.startsWith('block ')) say(line);
    });
    child.once('exit', code => reject(Error(`the kernel ended with ${code} before it was live`)));
  });
  return {
    isRunning: () => isRunning(child),
    // It checks its own database before it ends.
    stop: async () => {
      child.kill('SIGTERM');
      return ended(child);
    },
    kill: () => child.kill('SIGKILL'),
  };
};

const freePort = async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
};

// The processes that a process started, and those that they started. Empty if it is gone.
const descendants = pid => {
  const children = [];
  try {
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      const text = readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8');
      children.push(...text.split(' ').filter(Boolean).map(Number));
    }
  } catch {
    // It ended meanwhile.
  }
  return children.flatMap(child => [child, ...descendants(child)]);
};

const residentKilobytes = pid => {
  try {
    const [, kilobytes] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) || [];
    return Number(kilobytes || 0);
  } catch {
    return 0;
  }
};

// Tells a process from another one that later got its number.
const startOf = pid => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state, ...fields] = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return state === 'Z' ? undefined : fields[18];
  } catch {
    return undefined;
  }
};

// The series of a page in the Prometheus text format: `name{labels}` -> value.
const parseMetrics = page =>
  Object.fromEntries(
    page
      .split('\n')
      .filter(line => line && !line.startsWith('#'))
      .map(line => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
  );

export const makeDaemon = async (options, { directory, state, log }) => {
  const port = await freePort();
  const fd = openSync(log, 'a');
  const archives = ['transcript-archive', 'snapshot-archive'];
  const args = [
    'run',
    ...['--db', path.join(directory, 'agoric')],
    ...['--worker', options.worker],
    ...['--state-dir', state],
    ...['--listen', `127.0.0.1:${port}`],
    ...['--since', options.since],
    ...['--log-format', 'json'],
    ...(options.mode === 'archives' ? archives.flatMap(name => [`--${name}`, path.join(directory, name)]) : []),
    ...options.set.flatMap(pair => ['--set', pair]),
  ];
  let child;
  let life = 0;
  const lives = []; // { from, ready, until, end }

  const get = async page => {
    const response = await fetch(`http://127.0.0.1:${port}${page}`, { signal: AbortSignal.timeout(5000) });
    return { status: response.status, text: await response.text() };
  };

  const start = () => {
    child = spawn(options.spanwatch, args, { stdio: ['ignore', fd, fd] });
    life = lives.push({ from: now() });
    const here = lives.at(-1);
    child.once('error', error => (here.end = error.message));
    child.once('exit', (code, signal) => Object.assign(here, { until: now(), end: code ?? signal }));
  };

  const metrics = async () => {
    try {
      const { status, text } = await get('/metrics');
      return status === 200 ? parseMetrics(text) : undefined;
    } catch {
      return undefined;
    }
  };

  return {
    start,
    metrics,
    lives: () => lives,
    isRunning: () => child !== undefined && isRunning(child),
    memory: () => {
      const workers = descendants(child.pid);
      return {
        life,
        pid: child.pid,
        rss_kb: residentKilobytes(child.pid),
        workers: workers.length,
        workers_rss_kb: workers.map(residentKilobytes).reduce((sum, one) => sum + one, 0),
      };
    },
    // Since when it had looked at the node's database: what closes from then on is for it to see.
    waitUntilReady: async () => {
      const limit = now() + READY_SECONDS;
      while (now() < limit && isRunning(child)) {
        const ready = await get('/readyz').catch(() => undefined);
        if (ready?.status === 200) {
          lives.at(-1).ready = now();
          return;
        }
        await sleep(20);
      }
      throw Error(`the daemon is not ready after ${READY_SECONDS} s: see its log`);
    },
    stop: async () => {
      child.kill('SIGTERM');
      return ended(child);
    },
    // Returns the workers that outlived it.
    kill: async () => {
      const workers = descendants(child.pid).map(pid => ({ pid, started: startOf(pid) }));
      child.kill('SIGKILL');
      await ended(child);
      return async () => {
        await sleep(1000);
        return workers.filter(({ pid, started }) => started && startOf(pid) === started).map(({ pid }) => pid);
      };
    },
  };
};
