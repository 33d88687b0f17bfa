-- The node's database as it was last seen.
CREATE TABLE node (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  path TEXT NOT NULL,
  device INTEGER NOT NULL,
  inode INTEGER NOT NULL,
  crank INTEGER,
  activity_hash TEXT,
  height INTEGER
);

-- Every vat that was seen. Its closed spans that start before `cursor` are in `spans`, but for those that start in
-- [history_from, history_to), which are history that is not noted yet.
CREATE TABLE vats (
  vat TEXT PRIMARY KEY,
  cursor INTEGER NOT NULL,
  is_terminated INTEGER NOT NULL,
  name TEXT,
  worker_type TEXT,
  is_metered INTEGER NOT NULL,
  enable_disavow INTEGER NOT NULL,
  history_from INTEGER NOT NULL,
  history_to INTEGER NOT NULL
);

-- Closed spans. Without a verdict they are due.
CREATE TABLE spans (
  id INTEGER PRIMARY KEY,
  vat TEXT NOT NULL,
  start INTEGER NOT NULL,
  end INTEGER NOT NULL,
  hash TEXT NOT NULL,
  incarnation INTEGER NOT NULL,
  source TEXT NOT NULL CHECK (source IN ('live', 'history')),
  noticed_at REAL NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  not_before REAL NOT NULL DEFAULT 0,
  verdict TEXT,
  reason TEXT,
  explanation TEXT,
  kinds TEXT,
  seen_to INTEGER,
  base TEXT,
  detail TEXT,
  finished_at REAL,
  replay_seconds REAL,
  deliveries INTEGER,
  syscalls INTEGER,
  worker_sha256 TEXT,
  acknowledged_at REAL,
  note TEXT,
  UNIQUE (vat, start, end, hash)
);
CREATE INDEX due ON spans (source, id) WHERE verdict IS NULL;
CREATE INDEX unacknowledged ON spans (id) WHERE verdict = 'diverged' AND acknowledged_at IS NULL;
CREATE INDEX finished ON spans (finished_at) WHERE verdict IS NOT NULL;

-- Counts that outlive their rows and the process.
CREATE TABLE totals (
  name TEXT NOT NULL,
  label TEXT NOT NULL,
  value INTEGER NOT NULL,
  PRIMARY KEY (name, label)
) WITHOUT ROWID;

-- Heap images, each once, as the node compressed them; their hash is that of the uncompressed image.
CREATE TABLE images (
  hash TEXT PRIMARY KEY,
  bytes INTEGER NOT NULL,
  captured_at REAL NOT NULL,
  gzip BLOB NOT NULL
);

-- So that counting and choosing do not read the images themselves.
CREATE INDEX images_by_age ON images (captured_at, hash, bytes);

-- Which spans start from which image.
CREATE TABLE image_uses (
  vat TEXT NOT NULL,
  start INTEGER NOT NULL,
  hash TEXT NOT NULL REFERENCES images (hash) ON DELETE CASCADE,
  is_done INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (vat, start)
);
CREATE INDEX image_uses_by_hash ON image_uses (hash);

-- Spans of which items were copied while they were current: those in [start, next), and their cumulative hash.
CREATE TABLE captures (
  vat TEXT NOT NULL,
  start INTEGER NOT NULL,
  next INTEGER NOT NULL,
  hash TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  captured_at REAL NOT NULL,
  is_done INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (vat, start)
);

CREATE TABLE captured_items (
  vat TEXT NOT NULL,
  start INTEGER NOT NULL,
  position INTEGER NOT NULL,
  item BLOB NOT NULL,
  PRIMARY KEY (vat, start, position),
  FOREIGN KEY (vat, start) REFERENCES captures (vat, start) ON DELETE CASCADE
);
