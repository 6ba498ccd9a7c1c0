CREATE TABLE IF NOT EXISTS study (
  name TEXT PRIMARY KEY,
  uid TEXT NOT NULL,
  state TEXT NOT NULL,
  reason TEXT NOT NULL DEFAULT '',
  generation INTEGER NOT NULL DEFAULT 0,
  broken_off INTEGER NOT NULL DEFAULT 0,
  ended INTEGER NOT NULL DEFAULT 0,      -- how often the system ended the process that worked on it
  tries INTEGER NOT NULL DEFAULT 0,      -- of sending
  next_try REAL NOT NULL DEFAULT 0,
  dropped INTEGER NOT NULL DEFAULT 0,    -- how many images it had when they were deleted; 0: they are there
  first_at REAL NOT NULL,
  last_at REAL NOT NULL,
  changed_at REAL NOT NULL,
  seconds REAL NOT NULL DEFAULT 0        -- from the last image to the end
);
CREATE TABLE IF NOT EXISTS instance (
  study TEXT NOT NULL, name TEXT NOT NULL, series TEXT NOT NULL, sha256 TEXT NOT NULL,
  is_ct INTEGER NOT NULL, stated INTEGER,
  PRIMARY KEY (study, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sent (
  peer TEXT NOT NULL, object TEXT NOT NULL, sha256 TEXT NOT NULL, study TEXT NOT NULL, at REAL NOT NULL,
  committed INTEGER,
  PRIMARY KEY (peer, object)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked (
  uid TEXT PRIMARY KEY, peer TEXT NOT NULL, study TEXT NOT NULL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
