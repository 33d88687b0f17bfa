-- Whether the verdict says that the node's own record is damaged. Such a span alarms until somebody acknowledges it.
ALTER TABLE spans ADD COLUMN is_damaged INTEGER NOT NULL DEFAULT 0;
UPDATE spans SET is_damaged = 1 WHERE verdict = 'unverifiable' AND reason IN (
  'items_missing', 'span_hash_mismatch', 'span_row_damaged', 'item_unreadable', 'item_out_of_place',
  'transcript_archive_damaged', 'base_damaged', 'bundle_missing', 'bundle_damaged');
CREATE INDEX damaged ON spans (id) WHERE is_damaged = 1 AND acknowledged_at IS NULL;
CREATE INDEX contradicted ON spans (id) WHERE verdict = 'contradicted' AND acknowledged_at IS NULL;

-- What is wrong with rows of the node's database, apart from the verdict of any span: breaks in a vat's history
-- ('damaged') and rows that are not what they were ('changed'). Each is raised once and stays until it is acknowledged.
CREATE TABLE alarms (
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('damaged', 'changed')),
  vat TEXT NOT NULL,
  start INTEGER NOT NULL,
  end INTEGER NOT NULL,
  incarnation INTEGER NOT NULL,
  reason TEXT NOT NULL,
  explanation TEXT NOT NULL,
  found_at REAL NOT NULL,
  acknowledged_at REAL,
  note TEXT,
  UNIQUE (kind, vat, start, explanation)
);
CREATE INDEX alarms_unacknowledged ON alarms (kind) WHERE acknowledged_at IS NULL;

-- Closed spans as their rows were when they were seen first; `hash` is empty where the column held none.
CREATE TABLE seen_spans (
  vat TEXT NOT NULL,
  start INTEGER NOT NULL,
  end INTEGER NOT NULL,
  incarnation INTEGER NOT NULL,
  hash BLOB NOT NULL,
  PRIMARY KEY (vat, start)
) WITHOUT ROWID;

-- The hash of the heap image at a position: of the row in `snapshots` (then `in_row` is set) or of the items
-- `save-snapshot` and `load-snapshot` of a span that was judged. All of them must name the same.
CREATE TABLE seen_images (
  vat TEXT NOT NULL,
  position INTEGER NOT NULL,
  hash BLOB NOT NULL,
  in_row INTEGER NOT NULL,
  PRIMARY KEY (vat, position)
) WITHOUT ROWID;

-- How far the rows were read again: the key of the last one, NULL before the first, and when the round began.
CREATE TABLE recheck (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  vat TEXT,
  start INTEGER,
  began_at REAL NOT NULL
);
